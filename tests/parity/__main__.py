"""`make parity-torch`: our network against torchvision's and timm's ResNeXt-50 (32x4d), with the same random weights.

    python -m tests.parity PYTHON        PYTHON is that of an environment with torch, torchvision and timm

Their files come in as a person's would. Compared are the logits and the outputs of all blocks on four photos at three
sizes, with the layers that train and with those that are exported; then the way back, into torchvision with
strict=True. Ends with status 1 where a logit differs by more than 1e-3.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from benchmarks.machine import machine
from tests.process import ROOT
from training.contract.manifest import Preprocessing
from training.network import resnext
from training.network.published_weights import load_published, tensors_of
from training.network.runtime import keras
from training.weights.importing import description_of, import_file
from training.weights.presets import preset_named
from training.weights.store import WeightsStore
from training.weights.tensors import open_tensors, write_tensors

REFERENCE = Path(__file__).with_name("reference.py")
SIZES = (192, 224, 288)
TOLERANCE = 1e-3

Arrays = dict[str, NDArray[Any]]


def main(python: str) -> int:
    """Compares, prints a line for each comparison, and returns the exit status."""
    worst = 0.0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _say(machine(("tensorflow", "keras", "numpy", "safetensors")))
        _say(_torch(python, "networks", folder))
        store = WeightsStore(folder / "weights")
        for library in ("torchvision", "timm"):
            about = description_of(preset_named("tv_in1k"), origin=f"{library}, random")
            import_file(store, folder / f"{library}.safetensors", library, about)
            for size in SIZES:
                answers = load_file(folder / f"{library}-{size}.safetensors")
                for exported in (False, True):
                    model = _network(store, library, size, exported=exported)
                    form = "exported" if exported else "trained"
                    worst = max(worst, _compared(f"{library} {size} {form}", model, answers))
        worst = max(worst, _way_back(python, folder, store))
    _say(f"largest difference {worst:.1e}, allowed {TOLERANCE:.0e}")
    return 0 if worst <= TOLERANCE else 1


def _network(store: WeightsStore, name: str, size: int, *, exported: bool) -> keras.Model:
    record = store.record(name)
    preprocessing = Preprocessing(height=size, width=size)
    model = resnext.build(record.architecture, preprocessing, len(record.labels), exported=exported)
    with open_tensors(store.verified_file(name)) as tensors:
        load_published(model, tensors)
    return model


def _compared(title: str, model: keras.Model, answers: Arrays) -> float:
    """Prints how far logits and blocks are from PyTorch's. Returns the largest difference of a logit."""
    images, logits = answers["images"], answers["logits"]
    blocks = sorted(set(answers) - {"images", "logits"})
    probe = keras.Model(model.input, [*(model.get_layer(f"{name}_relu3").output for name in blocks), model.output])
    *outputs, ours = [np.asarray(output) for output in probe(images, training=False)]
    differences = {name: _difference(output, answers[name]) for name, output in zip(blocks, outputs, strict=True)}
    difference = _difference(ours, logits)
    same = int((ours.argmax(axis=1) == logits.argmax(axis=1)).sum())
    _say(
        f"{title}: logits {difference:.1e} (their std is {logits.std():.1f}), the same class on {same} of "
        f"{len(logits)}, blocks {max(differences.values()):.1e}"
    )
    for name in blocks:
        if not differences[name] <= TOLERANCE:
            _say(f"  {name}: {differences[name]:.1e} (their std is {answers[name].std():.1f})")
    return difference


def _way_back(python: str, folder: Path, store: WeightsStore) -> float:
    """Loads our weights in torchvision, and returns how far its logits are from those with its own file."""
    write_tensors(folder / "exported.safetensors", tensors_of(_network(store, "torchvision", 224, exported=False)))
    _torch(python, "loaded", folder / "exported.safetensors", folder)
    found = load_file(folder / "loaded.safetensors")
    differences = {
        size: _difference(found[str(size)], load_file(folder / f"torchvision-{size}.safetensors")["logits"])
        for size in SIZES
    }
    _say(f"exported, loaded in torchvision with strict=True: logits {max(differences.values()):.1e}")
    return max(differences.values())


def _difference(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """Returns the largest difference; infinite where a value is no number, so that no limit passes it."""
    difference = float(np.abs(ours - theirs).max())
    return difference if np.isfinite(difference) else np.inf


def _torch(python: str, *arguments: object) -> str:
    command = [python, str(REFERENCE), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
