"""Takes a file of published weights into the store: what its bytes say is checked, the rest has to be told."""

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from training.contract.architecture import Architecture
from training.contract.labels import unseen_in
from training.contract.manifest import Preprocessing
from training.errors import few
from training.system.files import sha256
from training.weights.layout import architecture_of
from training.weights.licences import check_licence
from training.weights.presets import Preset, imagenet_labels
from training.weights.store import WeightsError, WeightsRecord, WeightsStore
from training.weights.tensors import Tensors, TensorsError, open_tensors

MAX_LABELS_BYTES = 1024**2


class LabelsError(WeightsError):
    """Labels that are not those of a file's head."""


@dataclass(frozen=True)
class Description:
    """The facts that a file of tensors lacks: its origin, its licence, its images and its classes."""

    origin: str
    licence: str
    preprocessing: Preprocessing
    labels: list[str]
    revision: str | None = None


def description_of(
    preset: Preset, image_size: int | None = None, *, origin: str, revision: str | None = None
) -> Description:
    """Returns what a preset tells of a file. Raises PresetError for an image size that it does not know."""
    return Description(origin, preset.licence, preset.preprocessing(image_size), imagenet_labels(), revision)


def import_file(
    store: WeightsStore, file: Path, name: str, description: Description, *, allow_noncommercial: bool = False
) -> WeightsRecord:
    """Copies a file into the store under this name. Returns its record.

    What can be refused without reading the file is refused first. Raises WeightsError, TensorsError, LicenceRefused,
    OSError.
    """
    check_licence(name, description.licence, allow_noncommercial=allow_noncommercial)
    store.require_free(name)
    with open_tensors(file):  # before it is copied: it may be something else, and large
        pass
    with store.staging() as folder:
        staged = folder / "tensors"
        shutil.copyfile(file, staged)
        return take_in(store, staged, name, description, allow_noncommercial=allow_noncommercial, called=str(file))


def take_in(
    store: WeightsStore,
    staged: Path,
    name: str,
    description: Description,
    *,
    allow_noncommercial: bool = False,
    called: str | None = None,
) -> WeightsRecord:
    """Checks a file that lies in the store's staging folder, and moves it into its place. Returns its record.

    Every tensor is read, one at a time. `called` is the file's name in messages. Raises WeightsError, TensorsError,
    LicenceRefused.
    """
    check_licence(name, description.licence, allow_noncommercial=allow_noncommercial)
    architecture = _checked(staged, description.labels, called or name)
    try:
        record = WeightsRecord(
            name=name,
            origin=description.origin,
            revision=description.revision,
            licence=description.licence,
            sha256=sha256(staged),
            bytes=staged.stat().st_size,
            architecture=architecture,
            preprocessing=description.preprocessing,
            labels=description.labels,
            created=datetime.now(UTC),
        )
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise WeightsError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    store.put(staged, record)
    return record


def read_labels(path: Path) -> list[str]:
    """Returns the labels of a text file, one a line. Raises LabelsError, OSError."""
    with path.open("rb") as file:
        data = file.read(MAX_LABELS_BYTES + 1)
    if len(data) > MAX_LABELS_BYTES:
        raise LabelsError(f"{path} should hold labels in at most {MAX_LABELS_BYTES} bytes, it has more")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise LabelsError(f"{path} should hold labels in UTF-8, one a line") from None
    labels = [line.strip() for line in lines]
    while labels and not labels[-1]:
        labels.pop()
    if empty := [i for i, label in enumerate(labels, start=1) if not label]:
        raise LabelsError(f"{path} should hold a label in each line, line {empty[0]} is empty")
    for i, label in enumerate(labels, start=1):
        if unseen := unseen_in(label):
            raise LabelsError(f"{path} should hold labels that can be seen, line {i} holds {unseen}")
    return labels


def _checked(staged: Path, labels: list[str], called: str) -> Architecture:
    """Returns the file's architecture, after all that can be wrong with its tensors was looked for."""
    with open_tensors(staged, called) as tensors:
        architecture, classes = architecture_of(tensors.shapes, called)
        if len(labels) != classes:
            raise LabelsError(f"{called} names {classes} classes, there are {len(labels)} labels")
        _check_values(tensors, called)
    return architecture


def _check_values(tensors: Tensors, called: str) -> None:
    """Raises TensorsError where a value is not finite, or a variance is below zero."""
    negative = [name for name, values in tensors.items() if name.endswith(".running_var") and np.any(values < 0)]
    if negative:
        raise TensorsError(f"{called} should have variances of 0 or more, these have others: {few(negative)}")
