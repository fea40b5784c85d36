"""Images without labels, which a version of published weights is made and judged with.

The photos of `training.weights.known_photos` are always there. A folder of a person's own images calibrates INT8, and
makes the judgment of all variants better.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.config import Int8
from training.contract.manifest import Preprocessing
from training.datasets.layout import PICTURES
from training.datasets.listing import files_below
from training.datasets.loading import spread
from training.errors import TrainingError, few
from training.exported.classifier import Uint8Images
from training.images.decode import ImageError, decode
from training.system.threads import in_threads
from training.weights.known_photos import KNOWN_PHOTOS

LEAST = 20  # images in a folder: half of them calibrate, and two wrong answers of the others decide nothing
MOST = 2 * Int8().calibration_images


class CalibrationError(TrainingError):
    """A folder that INT8 cannot be calibrated on."""


class Unlabeled(NamedTuple):
    """Images without labels, uint8 [N, height, width, 3]. Those that calibrate judge nothing.

    `judging` begins with the known photos. `calibrating` has no rows where no folder was given.
    """

    judging: Uint8Images
    calibrating: Uint8Images


def read_unlabeled(preprocessing: Preprocessing, folder: Path | None, say: Callable[[str], object]) -> Unlabeled:
    """Decodes the known photos, and at most 256 images of the folder, spread over it.

    Files that have the name of a picture and are none are passed over, and `say` is called with their names. Raises
    CalibrationError for a folder with fewer than 20 images, DatasetError when it cannot be listed.
    """
    photos = np.stack([decode(photo.read(), preprocessing) for photo in KNOWN_PHOTOS])
    if folder is None:
        return Unlabeled(photos, np.empty((0, *preprocessing.shape), np.uint8))
    if not folder.is_dir():
        raise CalibrationError(f"--calibration should name a folder of images, {folder} is none")
    # annotations often lie beside pictures, as many as these
    files = sorted(file for file in files_below(folder) if file.suffix.lower() in PICTURES)
    chosen = [files[row] for row in spread(len(files), MOST)]
    found = list(in_threads(partial(_decoded, preprocessing), chosen))
    images = [image for image in found if image is not None]
    if len(images) < LEAST:
        raise CalibrationError(
            f"{folder} should hold at least {LEAST} images to calibrate INT8 with: of {len(chosen)} files that have "
            f"the name of one and were tried, {len(images)} are images"
        )
    if unread := [file.name for file, image in zip(chosen, found, strict=True) if image is None]:
        say(f"passed over in {folder}, as no images: {few(unread)}")
    return Unlabeled(np.concatenate([photos, images[1::2]]), np.stack(images[::2]))


def _decoded(preprocessing: Preprocessing, file: Path) -> Uint8Images | None:
    """Returns an image, None for a file that is none."""
    try:
        return decode(file, preprocessing)
    except (ImageError, OSError):
        return None
