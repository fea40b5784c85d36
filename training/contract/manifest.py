"""The model package: what training hands to serving, on disk.

`models/<name>/` is a Triton model repository entry::

    config.pbtxt  labels.txt                what Triton reads, of the live version
    ACTIVE  HISTORY  FAILURES               which version is live, which were, which were taken back: activation.py
    7/model.onnx  7/model.cpu.onnx  7/model.int8.onnx  7/model.fp16.onnx
    7/manifest.json  7/golden.npz  7/model.weights.h5  7/report/...

A version is written in a hidden staging folder on the same file system, flushed to disk and renamed in one
step, so that a reader never sees half of one. Nothing here needs TensorFlow.
"""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, computed_field

from training.contract.activation import Activations, Failure, is_version
from training.contract.intervals import Proportion
from training.contract.verdict import ClassRecall as ClassRecall
from training.contract.verdict import Verdict as Verdict
from training.errors import ContractError as ContractError  # also from here: it is this module's
from training.system.durable import fsync, write_atomically
from training.system.locks import exclusive
from training.system.staging import bury, new_staging, remove_stale_staging

MODEL_FILE = "model.onnx"
CPU_FILE = "model.cpu.onnx"
INT8_FILE = "model.int8.onnx"
FP16_FILE = "model.fp16.onnx"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"
WEIGHTS_FILE = "model.weights.h5"  # Keras', float32: what a later training may start from
REPORT_FOLDER = "report"

# by precision, in golden.npz
GOLDEN_PROBABILITIES = {"fp32": "probabilities", "int8": "probabilities_int8", "fp16": "probabilities_fp16"}

INPUT_NAME = "image"  # uint8 [N, height, width, 3], RGB
OUTPUT_NAME = "probabilities"  # float32 [N, classes]


VersionState = Literal["live", "failed", "earlier live", "rejected", "aside", "incomplete"]


class VersionMissing(ContractError):
    """There is no folder of that version, or none in sight yet."""


class ActiveChanged(ContractError):
    """Another version went live than the one that the caller judged by."""


class Preprocessing(BaseModel):
    """How an image becomes the network's input: decode and resize in `training.images`, mean and std in the graph."""

    model_config = ConfigDict(frozen=True)

    height: int = Field(gt=0)
    width: int = Field(gt=0)
    resize_mode: Literal["squash", "crop", "pad"] = "squash"
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class Metrics(BaseModel):
    """What the exported classifier reached on one split. Accuracies are fractions of 1."""

    images: int
    loss: float
    accuracy: float
    top5_accuracy: float

    @computed_field(description="the 95 % interval of the accuracy (Wilson), which so many images allow")  # type: ignore[prop-decorator]
    @property
    def accuracy_interval(self) -> tuple[float, float]:
        return Proportion.of(self.accuracy, self.images).interval


class Variant(BaseModel):
    """One file that computes the model at one precision."""

    file: str
    cpu_file: str | None = Field(None, description="the same, rewritten for CPUs, where there is one")
    accuracy: float = Field(description="on the test split, by ONNX Runtime")
    agreement: float | None = Field(
        None, description="share of the validation and test images of which it names the class that float32 names"
    )
    images_per_second: float | None = Field(
        description="one by one, on the CPU that made it; null where others kept that busy, and for FP16, of whose "
        "speed a CPU says nothing"
    )
    calibration: str | None = Field(None, description="how the ranges of INT8 were found")
    float_blocks: list[str] = Field([], description="what an INT8 variant leaves in float32")

    def file_on(self, provider: str) -> str:
        """What is run on an execution provider: "cpu" is ONNX Runtime's own."""
        return (self.cpu_file if provider == "cpu" else None) or self.file


class Parity(BaseModel):
    """Keras against ONNX Runtime on the same images."""

    images: int
    top1_equal: int
    max_abs_difference: float


class DatasetRecord(BaseModel):
    """Which data a version was trained on."""

    path: str
    fingerprint: str
    images: dict[str, int]
    seed: int


class Manifest(BaseModel):
    """`manifest.json` of one version. Unknown fields of a later release are ignored."""

    schema_version: Literal[1] = 1
    name: str
    version: int = 0
    created: datetime
    labels: list[str] = Field(min_length=2)
    preprocessing: Preprocessing
    variants: dict[str, Variant]
    metrics: dict[str, Metrics]
    parity: Parity
    config: dict[str, Any]
    dataset: DatasetRecord
    parameters: dict[str, int]
    training_seconds: float
    libraries: dict[str, str]
    parent: int | None = Field(None, description="the version that was live when this one was published")
    init_version: int | None = Field(None, description="the version whose weights it started from, if any")
    run: str | None = Field(None, description="name of the run's folder; the job's id")
    gate: Verdict | None = None
    files: dict[str, str] = Field(default_factory=dict, description="SHA-256 of every other file, by relative path")


class ModelRepository:
    """The versions of one model under `root/name`.

    Readers need no lock: every change is one rename. Writers take `flock` on `.lock`.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.folder = root / name
        self._activations = Activations(self.folder)

    def versions(self) -> list[int]:
        """All published versions, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(p.name) for p in self.folder.iterdir() if is_version(p.name) and p.is_dir())

    def active(self) -> int | None:
        """The live version's number, or None before the first activation.

        Raises ContractError when ACTIVE holds anything but a version number.
        """
        return self._activations.active()

    def failures(self) -> dict[int, Failure]:
        """The versions that were taken back, and why; one that is activated by hand is no longer among them.

        Raises ContractError when FAILURES can not be read.
        """
        return self._activations.failures()

    def predecessors(self) -> list[int]:
        """Where a rollback may go, the nearest first: versions that were live, are still there and did not fail.

        Raises ContractError when ACTIVE, HISTORY or FAILURES can not be read.
        """
        return self._activations.predecessors(self.versions())

    def predecessor(self) -> int | None:
        """Where `roll_back` goes, or None."""
        return next(iter(self.predecessors()), None)

    def path(self, version: int) -> Path:
        """The folder of a version. Raises VersionMissing."""
        folder = self.folder / str(version)
        if not folder.is_dir():
            known = ", ".join(map(str, self.versions())) or "none"
            raise VersionMissing(f"model {self.name!r} has no version {version}; it has: {known}")
        return folder

    def manifest(self, version: int) -> Manifest:
        """A version's manifest. Raises ContractError when it is missing or not valid."""
        path = self.path(version) / MANIFEST_FILE
        try:
            return Manifest.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise ContractError(f"{path} is missing") from None
        except ValidationError as error:
            raise ContractError(f"{path} is not a valid manifest: {error}") from error

    def verify_files(self, version: int, names: Iterable[str] | None = None) -> None:
        """Raises ContractError when a file is missing or its SHA-256 is not the manifest's; of all, or of these."""
        folder, files = self.path(version), self.manifest(version).files
        for name in files if names is None else names:
            if name not in files:
                listed = ", ".join(files) or "none"
                raise ContractError(f"{name} should be among the manifest's files, which are {listed}")
            try:
                actual = sha256(folder / name)
            except FileNotFoundError:
                raise ContractError(f"{folder / name} is named in the manifest and missing") from None
            if actual != files[name]:
                raise ContractError(f"{folder / name} should have SHA-256 {files[name]}, it has {actual}")

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """A hidden folder to fill and hand to `publish`; removed when the block ends without that."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = new_staging(self.folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def published_as(self, manifest: Manifest) -> Manifest | None:
        """The version that a run's package has become already: the one of the same run and time of creation."""
        if manifest.run is None:
            return None
        for version in reversed(self.versions()):
            try:
                other = self.manifest(version)
            except ContractError:  # one that can not be read is none that was just published
                continue
            if (other.run, other.created) == (manifest.run, manifest.created):
                return other
        return None

    def publish(self, staged: Path, manifest: Manifest) -> Manifest:
        """Makes the staged folder the next version, in one rename; returns its manifest.

        The version is published, not live: `activate` makes it so. A package of the same run and time of creation
        that is a version already is not published twice: that version's manifest comes back.
        """
        with self._lock():
            if done := self.published_as(manifest):
                return done
            version = max(self.versions(), default=0) + 1
            files = {p.relative_to(staged).as_posix(): sha256(p) for p in sorted(staged.rglob("*")) if p.is_file()}
            manifest = manifest.model_copy(update={"version": version, "files": files})
            (staged / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n")
            staged.chmod(0o755)  # mkdtemp makes it private; another user may serve it
            for path in [*staged.rglob("*"), staged]:
                fsync(path)
            staged.rename(self.folder / str(version))
            fsync(self.folder)
        return manifest

    def activate(self, version: int, *, expected: int | Literal["any"] | None = "any") -> None:
        """Makes a version live: the service follows ACTIVE.

        Raises ContractError when there is no such version, ActiveChanged when `expected` is not the live one.
        """
        with self._lock():
            if expected not in ("any", live := self.active()):
                raise ActiveChanged(f"version {expected} of {self.name!r} should be live, it is {live}")
            self._write_for_triton(version)
            self._activations.activate(version, self.versions())

    def roll_back(self, to: int | None = None, *, bad: Mapping[int, str] | None = None) -> int:
        """Makes an earlier version live, by default the one that was before; returns the version that is live then.

        It undoes an activation: twice goes two back. `bad` says which versions failed, and why, for `failures`; when
        none of them is live, another process was first, and nothing is done. Raises ContractError when there is
        nothing to go back to, VersionMissing when `to` is not there.
        """
        bad = bad or {}
        with self._lock():
            active = self.active()
            if active is None:
                raise ContractError(f"no version of {self.name!r} is live: there is nothing to roll back")
            if bad and active not in bad:
                return active
            target = self.predecessor() if to is None else to
            if target is None:
                raise ContractError(f"version {active} of {self.name!r} is live, and there is none to go back to")
            self._write_for_triton(target)
            self._activations.roll_back(target, self.versions(), bad)
        return target

    def delete(self, version: int) -> None:
        """Removes a version. Raises ContractError when it is live or not there."""
        with self._lock():
            self.path(version)
            if version == self.active():
                raise ContractError(f"version {version} of {self.name!r} is live; activate another one first")
            self._delete(version)

    def state(self, version: int) -> VersionState:
        """What became of a version: `aside` is one that was never live, `incomplete` one whose manifest is not there.

        Raises ContractError when ACTIVE, HISTORY or FAILURES cannot be read.
        """
        if version == self.active():
            return "live"
        if version in self.failures():
            return "failed"
        if version in self._activations.history(self.versions()):
            return "earlier live"
        try:
            gate = self.manifest(version).gate
        except ContractError:
            return "incomplete"
        return "rejected" if gate and not gate.passed else "aside"

    def prune(self, keep: int, *, spared: int | None = None) -> list[int]:
        """Deletes all but `keep` versions; returns what went.

        Rejected and failed versions go first, then the oldest. The live one, its predecessor and `spared` stay in any
        case. Also removes staging folders that a crash left more than a day ago.
        """
        with self._lock():
            versions = self.versions()
            by_worth = sorted(versions, key=lambda v: (self.state(v) not in ("rejected", "failed"), v), reverse=True)
            kept = {*by_worth[:keep], self.active(), self.predecessor(), spared}
            gone = [v for v in versions if v not in kept]
            for version in gone:
                self._delete(version)
        remove_stale_staging(self.folder)
        return gone

    def _delete(self, version: int) -> None:
        # hidden by one rename, then removed at leisure: never half a version in sight
        grave = bury(self.path(version), self.folder)
        self._activations.forget(version)
        shutil.rmtree(grave)

    def _write_for_triton(self, version: int) -> None:
        # before ACTIVE: a crash in between leaves the old version live, and the next activation repairs the rest
        manifest = self.manifest(version)
        write_atomically(self.folder / "labels.txt", "".join(f"{label}\n" for label in manifest.labels))
        write_atomically(self.folder / "config.pbtxt", triton_config(manifest))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder / ".lock"):
            yield


def triton_config(manifest: Manifest) -> str:
    """`config.pbtxt` as Triton reads it: names, types and shapes of `model.onnx`, serving the manifest's version."""
    size = manifest.preprocessing
    return (
        f"name: {json.dumps(manifest.name, ensure_ascii=False)}\n"
        'backend: "onnxruntime"\n'
        "max_batch_size: 64\n"
        f'input [{{ name: "{INPUT_NAME}" data_type: TYPE_UINT8 dims: [{size.height}, {size.width}, 3] }}]\n'
        f'output [{{ name: "{OUTPUT_NAME}" data_type: TYPE_FP32 dims: [{len(manifest.labels)}]'
        ' label_filename: "labels.txt" }]\n'
        f"version_policy: {{ specific: {{ versions: [{manifest.version}] }} }}\n"
        "dynamic_batching {}\n"
    )


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
