"""Published weights in our network, and ours under published names: torchvision's and timm's, which are the same.

| ours | theirs |
|---|---|
| `stem_conv`, `stem_norm`, `logits` | `conv1`, `bn1`, `fc` |
| `stage2_block1_conv3`, `stage2_block1_norm3` | `layer2.0.conv3`, `layer2.0.bn3` |
| `stage2_block1_shortcut_conv`, `stage2_block1_shortcut_norm` | `layer2.0.downsample.0`, `layer2.0.downsample.1` |

A kernel is [height, width, in / groups, out] here and [out, in / groups, height, width] there; the head's kernel is
transposed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any  # layers: Keras ships no types

import numpy as np
from numpy.typing import NDArray

from training.contract.architecture import Architecture
from training.contract.manifest import WEIGHTS_FILE, Preprocessing
from training.contract.repository import ModelRepository
from training.datasets.report import DatasetReport
from training.errors import TrainingError, few
from training.network import resnext
from training.network.checkpoint import Checkpoint
from training.network.runtime import keras
from training.runs.run import Run
from training.weights.layout import HEAD, NORM_PARTS
from training.weights.tensors import COUNTER

Array = NDArray[np.float32]

OUR_HEAD = "logits"
ENDS = {"stem_conv": "conv1", "stem_norm": "bn1", OUR_HEAD: HEAD}
SHORTCUT = {"conv": "downsample.0", "norm": "downsample.1"}
KINDS = {"conv": "conv", "norm": "bn"}
_ADDRESS = re.compile(r"stage(\d+)_block(\d+)_(shortcut_)?(conv|norm)(\d?)")

HWIO_OF_OIHW = (2, 3, 1, 0)
OIHW_OF_HWIO = (3, 2, 0, 1)


class PublishedWeightsError(TrainingError):
    """Published weights that are not this network's."""


def load_published(model: keras.Model, tensors: Mapping[str, Array], *, head: bool = True) -> None:
    """Gives the network published weights, which are read one layer at a time.

    Without `head` the last dense layer stays as it is, and a model may lack it. Raises PublishedWeightsError for a
    tensor that is missing, has another shape, or belongs to no layer; then some layers have their new weights already.
    """
    used: set[str] = set()
    for layer in _layers(model, head=head):
        names = _names(layer)
        used.update(names)
        if missing := [name for name in names if name not in tensors]:
            raise PublishedWeightsError(f"{layer.name} of the network needs {few(missing)}, which are missing")
        arrays = _ours(layer, [tensors[name] for name in names])
        for name, array, own in zip(names, arrays, layer.weights, strict=True):
            if array.shape != tuple(own.shape):
                raise PublishedWeightsError(
                    f"{layer.name} of the network should get {tuple(own.shape)}, {name} gives {array.shape}"
                )
        layer.set_weights(arrays)
    unused = [name for name in tensors if name not in used and (head or not name.startswith(f"{HEAD}."))]
    if unused:
        raise PublishedWeightsError(f"the network has no layer for {few(unused)}")


def tensors_of(model: keras.Model) -> dict[str, NDArray[Any]]:
    """Returns the network's weights under torchvision's names, float32, with BatchNorm's counters, int64 zeros.

    A network with a head loads them with `strict=True` there.
    """
    tensors: dict[str, NDArray[Any]] = {}
    for layer in _layers(model, head=True):
        names = _names(layer)
        tensors |= dict(zip(names, _theirs(layer), strict=True))
        if _is_norm(layer):
            tensors[_key(layer.name) + COUNTER] = np.zeros((), np.int64)
    return tensors


def tensors_of_version(repository: ModelRepository, version: int) -> dict[str, NDArray[Any]]:
    """Returns a version's weights as `tensors_of` does. Raises ContractError, PublishedWeightsError."""
    manifest = repository.manifest(version)
    if manifest.architecture is None:
        raise PublishedWeightsError(f"version {version} should say its architecture, its manifest has none known here")
    repository.verify_files(version, [WEIGHTS_FILE])
    file = repository.path(version) / WEIGHTS_FILE
    return _tensors_in(file, manifest.architecture, manifest.preprocessing, len(manifest.labels))


def tensors_of_run(run: Run) -> dict[str, NDArray[Any]]:
    """Returns the weights of a run's best epoch so far as `tensors_of` does. Raises RunError, CheckpointError."""
    config, labels = run.config(), run.record("checking", DatasetReport).labels
    checkpoint = Checkpoint(run.checkpoints, [])
    checkpoint.load_state()
    return _tensors_in(checkpoint.best_weights, config.architecture, config.preprocessing, len(labels))


def _tensors_in(
    file: Path, architecture: Architecture, preprocessing: Preprocessing, classes: int
) -> dict[str, NDArray[Any]]:
    model = resnext.build(architecture, preprocessing, classes)
    model.load_weights(file)
    return tensors_of(model)


def _layers(model: keras.Model, *, head: bool) -> list[Any]:
    return [layer for layer in model.layers if layer.weights and (head or layer.name != OUR_HEAD)]


def _key(name: str) -> str:
    """Returns the name of their module for one of our layers. Raises PublishedWeightsError."""
    if name in ENDS:
        return ENDS[name]
    if not (match := _ADDRESS.fullmatch(name)):
        raise PublishedWeightsError(f"torchvision's ResNeXt has no layer like {name!r}")
    stage, block, shortcut, kind, number = match.groups()
    return f"layer{stage}.{int(block) - 1}." + (SHORTCUT[kind] if shortcut else KINDS[kind] + number)


def _is_norm(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)


def _names(layer: Any) -> list[str]:
    """Returns their names of a layer's weights, in Keras' order."""
    parts = NORM_PARTS if _is_norm(layer) else ("weight", "bias")[: len(layer.weights)]
    return [f"{_key(layer.name)}.{part}" for part in parts]


def _ours(layer: Any, arrays: list[Array]) -> list[Array]:
    """Returns their arrays in our order of dimensions."""
    if _is_norm(layer):
        return arrays
    kernel, *rest = arrays
    return [kernel.transpose(HWIO_OF_OIHW) if kernel.ndim == 4 else kernel.T, *rest]


def _theirs(layer: Any) -> list[Array]:
    """Returns a layer's weights in their order of dimensions."""
    arrays = [weight.numpy() for weight in layer.weights]
    if _is_norm(layer):
        return arrays
    kernel, *rest = arrays
    return [kernel.transpose(OIHW_OF_HWIO) if kernel.ndim == 4 else kernel.T, *rest]
