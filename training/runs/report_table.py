"""The report of a dataset's check as a person reads it: a table of counts, then what is wrong with the files."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from training.contract.intervals import Proportion
from training.datasets.report import DatasetReport

FEW_TRAINING = 1000  # images, of all classes


def print_report(report: DatasetReport, console: Console, most: int = 10) -> None:
    """Prints the counts and at most `most` files of each kind of trouble. A long class name is folded, never cut."""
    console.print(report.folder, markup=False, highlight=False)
    console.print(_counts(report), soft_wrap=False, crop=False, highlight=False)
    for line in _lines(report, most):
        console.print(line, markup=False, highlight=False)


def _counts(report: DatasetReport) -> Table:
    """Returns the images of each class in each split. rich knows that a CJK character is two columns wide."""
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    table.add_column("class", overflow="fold")
    for split in report.images:
        table.add_column(split, justify="right", no_wrap=True)
    for label in report.labels:
        counts = (str(report.classes[split][label]) for split in report.images)
        table.add_row(Text(label), *counts)  # Text: to rich, a label such as "[red]" is markup
    table.add_row("all", *map(str, report.images.values()))
    return table


def _lines(report: DatasetReport, most: int) -> Iterator[str]:
    if report.root:
        yield f"read from {report.root}/"
    if report.dealt:
        yield f"dealt from train, as the folder has no {' and no '.join(report.dealt)}"
    troubles = {
        "notes": report.notes,
        "in no class folder, passed over": report.passed_over,
        "unreadable, skipped": list(map(str, report.unreadable)),
        "suspicious, used": list(map(str, report.suspicious)),
        "the same image in more than one split (a leak)": _joined(report.leaks),
        "the same image under more than one label": _joined(report.conflicts),
        "the same image more than once in a split": _joined(report.duplicates),
    }
    for title, found in troubles.items():
        if found:
            yield f"{title}: {len(found)}"
            yield from (f"  {line}" for line in found[:most])
        if len(found) > most:
            yield f"  ... and {len(found) - most} more"
    yield from _expectations(report)
    yield f"fingerprint {report.fingerprint}"


def _expectations(report: DatasetReport) -> Iterator[str]:
    """Says what accuracy this number of images can show."""
    train, test = report.images["train"], report.images["test"]
    low, high = Proportion.of(0.8, test).interval
    yield f"with {test} test images, a measured accuracy of 0.80 means {low:.2f} to {high:.2f} (95 %)"
    if train < FEW_TRAINING:
        yield f"{train} training images are few: compare the network with the baseline"
    if report.baseline:
        yield f"baseline: {report.baseline.render()}"


def _joined(groups: list[list[str]]) -> list[str]:
    return [" = ".join(group) for group in groups]
