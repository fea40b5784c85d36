"""The folder of published weights: for each name a file of tensors, and a record of what they are.

    weights/tv_in1k.safetensors     the parameters, as they were published
    weights/tv_in1k.json            origin, licence, SHA-256, architecture, preprocessing, labels

Weights exist once their record is there: it is written last and removed first, so a crash leaves at most a file of
tensors that nobody sees. Weights are never replaced under their name. Nothing here needs TensorFlow.
"""

import contextlib
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.contract.architecture import Architecture
from training.contract.manifest import Preprocessing
from training.contract.names import MAX_BYTES, Name, usable_name
from training.errors import TrainingError, words_of
from training.system.durable import fsync, write_atomically
from training.system.files import sha256
from training.system.locks import exclusive
from training.system.staging import new_staging, remove_stale_staging

DEFAULT_WEIGHTS = "tv_in1k"  # a plain softmax: the features of the other recipes transfer worse without fine-tuning
TENSORS_SUFFIX = ".safetensors"
RECORD_SUFFIX = ".json"
REJECTED_SUFFIX = f".rejected{TENSORS_SUFFIX}"
MAX_NAME_BYTES = MAX_BYTES - len(REJECTED_SUFFIX)
MAX_RECORD_BYTES = 4 * 1024**2  # a record with ImageNet's labels has 20 KB


class WeightsError(TrainingError):
    """Weights that cannot be used as asked."""


class WeightsNotFound(WeightsError):
    """A name that no weights in the folder have."""


class WeightsExist(WeightsError):
    """A name that other weights in the folder have already."""


class WeightsDamaged(WeightsError):
    """Weights whose files are not as they were put into the folder."""


class WeightsRejected(WeightsError):
    """Weights that say the wrong things of photos of known things."""


def _distinct(labels: list[str]) -> list[str]:
    if len(set(labels)) != len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        raise ValueError(f"labels should be distinct, {twice!r} comes twice")
    return labels


class WeightsRecord(BaseModel):
    """`NAME.json`. Unknown fields of a later release are ignored."""

    model_config = ConfigDict(frozen=True)

    name: Name
    origin: str = Field(min_length=1, description="where the file came from, as its repository on the hub")
    revision: str | None = Field(None, description="the commit of that repository")
    licence: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="of the file of tensors")
    bytes: int = Field(gt=0, description="of the file of tensors")
    architecture: Architecture
    preprocessing: Preprocessing
    labels: Annotated[list[str], AfterValidator(_distinct)] = Field(
        min_length=1, description="in the order of the head"
    )
    created: datetime

    @model_validator(mode="after")
    def _fits_one_file(self) -> Self:
        if len(self.model_dump_json()) > MAX_RECORD_BYTES:
            raise ValueError(f"a record should have at most {MAX_RECORD_BYTES} bytes")
        return self


class WeightsStore:
    """The weights in `folder`. Readers need no lock, writers lock `.lock`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Returns the names of all weights that have a record, whole or damaged, sorted."""
        if not self.folder.is_dir():
            return []
        return sorted(path.stem for path in self.folder.glob(f"*{RECORD_SUFFIX}") if _is_name(path.stem))

    def default(self) -> str | None:
        """Returns the name of the weights that a training starts from unless it is told: tv_in1k, else the only one."""
        names = self.names()
        if DEFAULT_WEIGHTS in names:
            return DEFAULT_WEIGHTS
        return names[0] if len(names) == 1 else None

    def record(self, name: str) -> WeightsRecord:
        """Returns the record of weights. Raises WeightsNotFound, WeightsDamaged."""
        name, path = _checked(name), self._record_path(name)
        try:
            with path.open("rb") as file:
                data = file.read(MAX_RECORD_BYTES + 1)
        except FileNotFoundError:
            raise self._not_found(name) from None
        except OSError as error:
            raise WeightsDamaged(f"{path} cannot be read: {words_of(error)}") from None
        if len(data) > MAX_RECORD_BYTES:
            raise WeightsDamaged(f"{path} should have at most {MAX_RECORD_BYTES} bytes, it has more")
        try:
            record = WeightsRecord.model_validate_json(data)
        except ValidationError as error:
            raise WeightsDamaged(f"{path} should hold the record of the weights {name!r}: {_first(error)}") from error
        if record.name != name:
            raise WeightsDamaged(f"{path} should be about the weights {name!r}, it is about {record.name!r}")
        return record

    def file(self, name: str) -> Path:
        """Returns the file of tensors; its bytes are not read. Raises WeightsNotFound, WeightsDamaged."""
        return self._file(self.record(name))

    def verified_file(self, name: str) -> Path:
        """Returns the file of tensors, of which every byte is as it was. Raises WeightsNotFound, WeightsDamaged.

        Reads the whole file: 0.1 seconds for 100 MB.
        """
        record = self.record(name)
        path = self._file(record)
        if (actual := sha256(path)) != record.sha256:
            raise WeightsDamaged(f"{path} should have SHA-256 {record.sha256}, it has {actual}")
        return path

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Yields a hidden folder on the same file system, for a file that `put` moves. Removes it at the end."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_stale_staging(self.folder)
        folder = new_staging(self.folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def require_free(self, name: str) -> None:
        """Raises WeightsExist when weights have this name, WeightsError when it is no name."""
        if self._record_path(name).exists():
            raise WeightsExist(
                f"there are weights {name!r} in {self.folder} already: give these another --name, or remove those "
                f"(resnext weights remove {name})"
            )

    def put(self, staged: Path, record: WeightsRecord) -> None:
        """Moves a staged file of tensors, whose record this is, into its place, then writes the record.

        Raises WeightsExist when the name is taken, WeightsDamaged when the file is not the record's.
        """
        _check_bytes(staged, record)
        target = self._tensors_path(record.name)
        with self._lock():
            self.require_free(record.name)
            if target.exists() and sha256(target) != record.sha256:
                raise WeightsExist(f"{target} is there without a record, and holds something else: move it away")
            fsync(staged)
            staged.replace(target)
            fsync(self.folder)
            write_atomically(self._record_path(record.name), record.model_dump_json(indent=2) + "\n")

    def remove(self, name: str) -> None:
        """Removes weights, damaged ones too. Raises WeightsNotFound."""
        path = self._record_path(name)
        if not path.exists():
            raise self._not_found(name)
        with self._lock():
            path.unlink(missing_ok=True)  # somebody else may have been first
            fsync(self.folder)
            self._tensors_path(name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def keeping_rejected(self, name: str, file: Path) -> Iterator[None]:
        """Moves a file aside, as NAME.rejected.safetensors, when the block raises WeightsRejected for it.

        Weights with this name are removed then. The error says where the file is.
        """
        try:
            yield
        except WeightsRejected as error:
            aside = self.folder / f"{_checked(name)}{REJECTED_SUFFIX}"
            with self._lock():
                self._record_path(name).unlink(missing_ok=True)
                fsync(self.folder)
                file.replace(aside)
            raise WeightsRejected(f"{error}. The file is kept as {aside}, and is not used") from None

    def _file(self, record: WeightsRecord) -> Path:
        path = self._tensors_path(record.name)
        if not path.is_file():
            raise WeightsDamaged(f"{path} is missing; {path.stem}{RECORD_SUFFIX} is there")
        _check_bytes(path, record)
        return path

    def _not_found(self, name: str) -> WeightsNotFound:
        known = ", ".join(self.names()) or "none"
        return WeightsNotFound(f"there are no weights {name!r} in {self.folder}; there are: {known}")

    def _tensors_path(self, name: str) -> Path:
        return self.folder / f"{_checked(name)}{TENSORS_SUFFIX}"

    def _record_path(self, name: str) -> Path:
        return self.folder / f"{_checked(name)}{RECORD_SUFFIX}"

    def _lock(self) -> AbstractContextManager[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        return exclusive(self.folder / ".lock")


def _checked(name: str) -> str:
    """Returns the name in the form that is kept: it becomes part of a path. Raises WeightsError."""
    try:
        name = usable_name(name)
    except ValueError as error:
        raise WeightsError(f"{name!r} cannot be the name of weights: {error}") from None
    if len(name.encode()) > MAX_NAME_BYTES:
        raise WeightsError(f"the name of weights should have at most {MAX_NAME_BYTES} bytes: {name!r}")
    return name


def _is_name(text: str) -> bool:
    try:
        return usable_name(text) == text
    except ValueError:
        return False


def _check_bytes(path: Path, record: WeightsRecord) -> None:
    if (actual := path.stat().st_size) != record.bytes:
        raise WeightsDamaged(f"{path} should have {record.bytes} bytes, it has {actual}")


def _first(error: ValidationError) -> str:
    """Returns the first complaint, with the field that it is about."""
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])
