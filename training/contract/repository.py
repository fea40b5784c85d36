"""The model repository: the versions of a model on disk, how one appears, and which one is active."""

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from training.contract.activation import Activations, Failure, is_version
from training.contract.manifest import MANIFEST_FILE, Manifest
from training.contract.triton import triton_config
from training.errors import ContractError
from training.system.durable import fsync, write_atomically
from training.system.files import sha256
from training.system.locks import exclusive
from training.system.staging import bury, new_staging, remove_stale_staging

VersionState = Literal["live", "failed", "earlier live", "rejected", "aside", "incomplete"]


class VersionMissing(ContractError):
    """There is no folder of that version, or none in sight yet."""


class ActiveChanged(ContractError):
    """Another version went live than the one that the caller judged by."""


class ModelRepository:
    """The versions of one model under `root/name`.

    Readers need no lock: every change is one rename. Writers take `flock` on `.lock`.
    """

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
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

    def manifest_stamp(self, version: int) -> int:
        """Returns a number that changes when a version's manifest is written again; 0 while there is none."""
        try:
            return (self.folder / str(version) / MANIFEST_FILE).stat().st_mtime_ns
        except FileNotFoundError:
            return 0

    def shorten(self, message: str) -> str:
        """Returns a message whose paths begin with the model's name instead of the root's."""
        return message.replace(f"{self.root}/", "")

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
