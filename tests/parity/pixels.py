"""Our decode against torchvision's and timm's transforms, for every preset, on photos of several sizes and shapes."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from training.contract.manifest import Preprocessing
from training.images.decode import decode
from training.weights.presets import PRESETS

MOST = 1  # grey level
SIZES = ((640, 480), (481, 723), (1999, 1501), (301, 301), (130, 97), (97, 900))  # width and height of pictures


def compare_pixels(folder: Path, reference: Callable[[str, Path], object], say: Callable[[str], object]) -> int:
    """Says how far each preset's pixels are from theirs, and returns the largest difference in grey levels.

    `reference` runs a command of PyTorch's side on a folder.
    """
    pictures = folder / "pictures"
    pictures.mkdir(parents=True)
    names = ("coffee", "chelsea", "rocket", "astronaut")
    for i, (width, height) in enumerate(SIZES):
        photo = Image.fromarray(getattr(skimage.data, names[i % len(names)])())
        photo.resize((width, height), Image.Resampling.LANCZOS).save(pictures / f"{width}x{height}.png")
    presets = {
        f"{name}@{size}": preset.preprocessing(size) for name, preset in PRESETS.items() for size in preset.resize
    }
    table = {key: (pixels.resize, pixels.height, pixels.interpolation) for key, pixels in presets.items()}
    (folder / "presets.json").write_text(json.dumps(table))
    reference("pixels", folder)
    theirs = load_file(folder / "pixels.safetensors")
    worst = 0
    for key, preprocessing in presets.items():
        parts = []
        for library in ("torchvision", "timm"):
            found = _differences(pictures, preprocessing, theirs, f"{library}|{key}|")
            parts.append(f"{library} {max(found)} on {len(found)} pictures" if found else f"{library} does not have it")
            worst = max([worst, *found])
        say(f"pixels of {key}: largest difference in grey levels: {', '.join(parts)}")
    say(f"pixels: largest difference {worst}, allowed {MOST}; {_draft(presets['tv_in1k@224'], folder)}")
    return worst


def _differences(
    pictures: Path, preprocessing: Preprocessing, theirs: dict[str, NDArray[np.uint8]], prefix: str
) -> list[int]:
    return [
        int(np.abs(decode(path, preprocessing).astype(int) - theirs[prefix + path.name]).max())
        for path in sorted(pictures.iterdir())
        if prefix + path.name in theirs
    ]


def _draft(preprocessing: Preprocessing, folder: Path) -> str:
    """Returns what it changes that a large JPEG is scaled down while it is decoded."""
    photo = Image.fromarray(skimage.data.astronaut()).resize((4032, 3024), Image.Resampling.LANCZOS)
    photo.save(folder / "large.jpg", quality=92)
    with Image.open(folder / "large.jpg") as large:
        large.save(folder / "large.png")
    scaled, whole = (decode(folder / f"large.{kind}", preprocessing).astype(int) for kind in ("jpg", "png"))
    difference = np.abs(scaled - whole)
    figures = f"mean {difference.mean():.2f}, largest {difference.max()}"
    return f"of a JPEG of 4032 x 3024, which is scaled while it is decoded: {figures}"
