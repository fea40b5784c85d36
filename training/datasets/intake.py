"""Unpacks and checks a dataset in a process of its own.

A hostile archive, or thousands of images to decode, then harm neither the memory nor the latency of the service.
`python -m training.datasets.intake unpack WORK NAME` makes WORK/revision of the archive WORK/archive, ready for the
store. `... check FOLDER WORK` writes summary and report of a folder into WORK. On failure the last line of stderr is
`error: CLASS MESSAGE`, of the exception.
"""

import argparse
import contextlib
import os
import resource
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from training.config import TrainConfig
from training.datasets.archive import ArchiveLimits, unpack
from training.datasets.check import check_dataset
from training.datasets.dataset import Dataset, list_dataset
from training.datasets.layout import DatasetError, Sample
from training.datasets.report import DatasetReport
from training.datasets.store import ARCHIVE_FILE, IMAGES_FOLDER, REPORT_FILE, REVISION_FOLDER, SUMMARY_FILE, Summary
from training.errors import ArchiveError, storage_error
from training.system import lifeline

UNPACKING_BYTES = 2 * 1024**3  # of memory: a zip's directory of a million files takes 1 GB
NICE = 10


def take_in(work: Path, name: str, limits: ArchiveLimits) -> None:
    """Makes a revision of the archive in `work`. It holds readable images only; the report lists what else there was.

    The archive is removed. Raises ArchiveError, DatasetError, OSError.
    """
    revision, unpacked = work / REVISION_FOLDER, work / "unpacked"
    with _bounded_memory():
        notes = unpack(work / ARCHIVE_FILE, unpacked, limits)
    (work / ARCHIVE_FILE).unlink()
    revision.mkdir()
    (work / "reading").mkdir()
    unpacked.rename(work / "reading" / name)
    os.chdir(work / "reading")  # messages then name `NAME/cat`, not a path that the client does not know
    report, samples = check_folder(Path(name), name)
    report = report.model_copy(update={"notes": notes + report.notes})
    _keep_only(samples, Path(name))
    _listed(Path(name))  # raises unless the kept images still make classes or splits
    write(revision, report, sum(sample.path.stat().st_size for sample in samples))
    (Path(name) / report.root).rename(revision / IMAGES_FOLDER)
    os.sync()  # once for all files: an fsync of each takes minutes for a hundred thousand files


def check_folder(folder: Path, name: str) -> tuple[DatasetReport, list[Sample]]:
    """Checks a folder as `resnext dataset check` does by default. Raises DatasetError."""
    report, samples = check_dataset(_listed(folder), TrainConfig(data=folder).preprocessing)
    return report.model_copy(update={"folder": name}), samples


def _listed(folder: Path) -> Dataset:
    defaults = TrainConfig(data=folder)
    return list_dataset(folder, defaults.val_fraction, defaults.test_fraction, defaults.seed)


def write(folder: Path, report: DatasetReport, size: int) -> None:
    """Writes summary and report. `size` is the size of the images' files in bytes."""
    summary = Summary(
        created=datetime.now(UTC).replace(microsecond=0),
        images=sum(report.images.values()),
        classes=len(report.labels),
        bytes=size,
        fingerprint=report.fingerprint,
    )
    (folder / SUMMARY_FILE).write_text(summary.model_dump_json())
    (folder / REPORT_FILE).write_text(report.model_dump_json())


def _keep_only(samples: list[Sample], folder: Path) -> None:
    """Removes every other file, and the folders that are then empty."""
    kept = {str(sample.path) for sample in samples}
    for parent, _, files in os.walk(folder, topdown=False):
        for path in (os.path.join(parent, file) for file in files):
            if path not in kept:
                os.unlink(path)
        if not os.listdir(parent):
            os.rmdir(parent)


@contextlib.contextmanager
def _bounded_memory() -> Iterator[None]:
    """Bounds the memory of parsers of hostile bytes. Decoding would take a MemoryError for a corrupt image."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:  # not Linux: only the limits of the archive apply
        pages = None
    if pages is not None:
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + UNPACKING_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _settle() -> None:
    os.umask(0o022)
    os.nice(NICE)
    with contextlib.suppress(OSError):  # only Linux has it
        Path("/proc/self/oom_score_adj").write_text("500")  # when memory ends, this process goes before the service


def main(arguments: list[str]) -> int:
    """0 when it is done, 1 when not."""
    parser = argparse.ArgumentParser(prog="python -m training.datasets.intake", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("work", type=Path)
    unpacking.add_argument("name")
    unpacking.add_argument("--max-files", type=int, required=True)
    unpacking.add_argument("--max-bytes", type=int, required=True)
    checking = commands.add_parser("check")
    checking.add_argument("folder", type=Path)
    checking.add_argument("work", type=Path)
    parsed = parser.parse_args(arguments)
    try:
        if parsed.command == "unpack":
            take_in(parsed.work.absolute(), parsed.name, ArchiveLimits(parsed.max_files, parsed.max_bytes))
        else:
            work, folder = parsed.work.absolute(), parsed.folder.absolute()
            os.chdir(folder.parent)
            report, samples = check_folder(Path(folder.name), folder.name)
            write(work, report, sum(sample.path.stat().st_size for sample in samples))
    except (ArchiveError, DatasetError, OSError) as failed:
        error = storage_error("the datasets folder", failed) if isinstance(failed, OSError) else failed
        sys.stderr.write(f"error: {type(error).__name__} {' '.join(str(error).splitlines())}\n")
        return 1
    return 0


if __name__ == "__main__":
    lifeline.follow()
    _settle()
    sys.exit(main(sys.argv[1:]))
