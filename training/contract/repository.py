"""The model repository: a model's versions on disk. Publishes, activates, rolls back and deletes them."""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from training.contract.activation import Activations, Failure, first_of, is_version, reading
from training.contract.manifest import MANIFEST_FILE, Manifest
from training.contract.triton import triton_config
from training.errors import ContractError
from training.system.durable import fsync, write_atomically
from training.system.files import read_at_most, sha256
from training.system.locks import LONGEST_S, exclusive
from training.system.staging import bury, new_staging, remove_stale_staging

VersionState = Literal["active", "failed", "earlier active", "rejected", "aside", "incomplete"]


class VersionMissing(ContractError):
    """A version that has no folder, or none in sight yet."""


class VersionActive(ContractError):
    """A version that is active, so that it cannot be deleted."""


class ActiveChanged(ContractError):
    """An activation that came too late: another version has become active since the caller looked."""


MANIFEST_BYTES = 16 * 2**20  # most; 1000 labels and their metrics take 300 kB


class ModelRepository:
    """The versions of one model under `root/name`.

    Readers need no lock: every change is one rename. Writers take `flock` on `.lock`, for which they wait up to
    `lock_seconds` and then raise LockHeld. Whatever the system does not let this process read raises
    RepositoryUnreadable.
    """

    def __init__(self, root: Path, name: str, lock_seconds: float = LONGEST_S) -> None:
        self.root = root
        self.name = name
        self.folder = root / name
        self._lock_seconds = lock_seconds
        self._activations = Activations(self.folder)

    def versions(self) -> list[int]:
        """Returns all published versions, ascending."""
        with reading(f"the folder of {self.name!r}"):
            try:
                with os.scandir(self.folder) as entries:
                    return sorted(int(entry.name) for entry in entries if is_version(entry.name) and _is_folder(entry))
            except (FileNotFoundError, NotADirectoryError):
                return []

    def active(self) -> int | None:
        """Returns the active version's number, or None before the first activation.

        Raises ContractError when ACTIVE holds anything but a version number.
        """
        return self._activations.active()

    def failures(self) -> dict[int, Failure]:
        """Returns the versions that were taken back, and why. Activating one by hand removes it from these.

        Raises ContractError when FAILURES cannot be read.
        """
        return self._activations.failures()

    def predecessors(self) -> list[int]:
        """Returns where a rollback may go, the nearest first: earlier versions that still exist and did not fail.

        Raises ContractError when ACTIVE, HISTORY or FAILURES cannot be read.
        """
        return self._activations.predecessors(self.versions())

    def predecessor(self) -> int | None:
        """Returns where `roll_back` goes by default, or None."""
        return next(iter(self.predecessors()), None)

    def path(self, version: int) -> Path:
        """Returns the folder of a version. Raises VersionMissing."""
        folder = self.folder / str(version)
        with reading(f"{self.name}/{version}"):
            there = folder.is_dir()
        if not there:
            known = ", ".join(map(str, self.versions())) or "none"
            raise VersionMissing(f"model {self.name!r} has no version {version}; it has: {known}")
        return folder

    def manifest(self, version: int) -> Manifest:
        """Returns a version's manifest. Raises ContractError when it is missing or not valid."""
        folder, name = self.path(version), f"{self.name}/{version}/{MANIFEST_FILE}"
        try:
            with reading(name):
                return Manifest.model_validate_json(read_at_most(folder / MANIFEST_FILE, MANIFEST_BYTES))
        except FileNotFoundError:
            raise ContractError(f"{name} is missing") from None
        except ValidationError as error:
            raise ContractError(f"{name} is not a valid manifest: {first_of(error)}") from error

    def manifest_stamp(self, version: int) -> int:
        """Returns a number that changes when a version's manifest is written again; 0 while there is none to see."""
        try:
            return (self.folder / str(version) / MANIFEST_FILE).stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return 0

    def shorten(self, message: str) -> str:
        """Returns a message whose paths begin with the model's name instead of the root's."""
        return message.replace(f"{self.root}/", "")

    def verify_files(self, version: int, names: Iterable[str] | None = None) -> None:
        """Raises ContractError when a file, of all or of `names`, is missing or its SHA-256 is not the manifest's."""
        folder, files = self.path(version), self.manifest(version).files
        for name in files if names is None else names:
            if name not in files:
                listed = ", ".join(files) or "none"
                raise ContractError(f"{name} should be among the manifest's files, which are {listed}")
            shown = f"{self.name}/{version}/{name}"
            try:
                with reading(shown):
                    actual = sha256(folder / name)
            except FileNotFoundError:
                raise ContractError(f"{shown} is named in the manifest and missing") from None
            if actual != files[name]:
                raise ContractError(f"{shown} should have SHA-256 {files[name]}, it has {actual}")

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """Yields a hidden folder to fill and hand to `publish`, and removes it when the block ends without that."""
        self.folder.mkdir(parents=True, exist_ok=True)
        folder = new_staging(self.folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def published_as(self, manifest: Manifest) -> Manifest | None:
        """Returns the manifest of the version that this package has become already: same run, same time of creation."""
        if manifest.run is None:
            return None
        for version in reversed(self.versions()):
            try:
                other = self.manifest(version)
            except ContractError:  # a version that was just published can be read
                continue
            if (other.run, other.created) == (manifest.run, manifest.created):
                return other
        return None

    def publish(self, staged: Path, manifest: Manifest) -> Manifest:
        """Makes the staged folder the next version, in one rename; returns its manifest.

        The version is not active yet: `activate` does that. A package of the same run and time of creation is not
        published twice: the manifest of the version that it became is returned.
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
        """Makes a version active; the service follows ACTIVE. Damaged ACTIVE, HISTORY and FAILURES are written anew.

        Raises ContractError when there is no such version, ActiveChanged when `expected` is not the active one.
        """
        with self._lock():
            if expected != "any" and expected != (active := self.active()):
                raise ActiveChanged(f"version {expected} of {self.name!r} should be active, it is {active}")
            self._write_for_triton(version)
            self._activations.activate(version, self.versions())

    def roll_back(self, to: int | None = None, *, bad: Mapping[int, str] | None = None) -> int:
        """Makes an earlier version active, by default the one before; returns the version that is active afterwards.

        A rollback undoes an activation: two rollbacks go back by two. `bad` says which versions failed and why, for
        `failures`; when none of them is active, another process was first, and nothing is done. Raises ContractError
        when there is nothing to go back to, VersionMissing when `to` does not exist.
        """
        bad = bad or {}
        with self._lock():
            active = self.active()
            if active is None:
                raise ContractError(f"no version of {self.name!r} is active: there is nothing to roll back")
            if bad and active not in bad:
                return active
            target = self.predecessor() if to is None else to
            if target is None:
                raise ContractError(f"version {active} of {self.name!r} is active, and there is none to go back to")
            self._write_for_triton(target)
            self._activations.roll_back(target, self.versions(), bad)
        return target

    def delete(self, version: int) -> None:
        """Removes a version. Raises VersionActive when it is active, VersionMissing when it does not exist.

        Raises ContractError when ACTIVE, HISTORY or FAILURES cannot be read: the version would stay in them.
        """
        with self._lock():
            self.path(version)
            if version == self.active():
                raise VersionActive(f"version {version} of {self.name!r} is active; activate another one first")
            self.predecessors()
            self._delete(version)

    def state(self, version: int) -> VersionState:
        """Returns the state of a version: `aside` was never active, `incomplete` has no valid manifest.

        Raises ContractError when ACTIVE, HISTORY or FAILURES cannot be read.
        """
        if version == self.active():
            return "active"
        if version in self.failures():
            return "failed"
        if version in self._activations.history(self.versions()):
            return "earlier active"
        try:
            gate = self.manifest(version).gate
        except ContractError:
            return "incomplete"
        return "rejected" if gate and not gate.passed else "aside"

    def prune(self, keep: int, *, spared: int | None = None) -> list[int]:
        """Deletes all but `keep` versions; returns those that it deleted.

        Rejected and failed versions go first, then the oldest. The active one, its predecessor and `spared` stay in
        any case. Also removes staging folders that a crash left more than a day ago.
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
        # one rename hides it before anything is removed: half a version is never in sight
        grave = bury(self.path(version), self.folder)
        self._activations.forget(version)
        shutil.rmtree(grave, ignore_errors=True)  # what cannot be removed is out of sight, and `prune` tries again

    def _write_for_triton(self, version: int) -> None:
        # before ACTIVE: a crash in between leaves the old version active, and the next activation repairs the rest
        manifest = self.manifest(version)
        write_atomically(self.folder / "labels.txt", "".join(f"{label}\n" for label in manifest.labels))
        write_atomically(self.folder / "config.pbtxt", triton_config(manifest))

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(self.folder / ".lock", self._lock_seconds):
            yield


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that cannot be read
        return False
