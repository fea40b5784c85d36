"""The report of a dataset's check in lines, at 80 columns and in a pipe."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from training.datasets.report import Baseline, DatasetReport, Suspicious, Unreadable
from training.runs.report_table import print_report

LABELS = ["猫", "[red]", "a class with a name that is longer than what most people would write, twice over " * 2]


def report(labels: list[str], **found: object) -> DatasetReport:
    classes = {split: {label: 1000 + row for row, label in enumerate(labels)} for split in ("train", "val", "test")}
    nothing: dict[str, object] = {name: [] for name in ("unreadable", "duplicates", "leaks", "conflicts")}
    return DatasetReport.model_validate(
        {
            "folder": "/data/animals",
            "labels": labels,
            "images": {split: sum(counts.values()) for split, counts in classes.items()},
            "classes": classes,
            "fingerprint": "f" * 64,
            **nothing,
            **found,
        }
    )


def printed(report: DatasetReport, width: int = 10_000) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    print_report(report, console)
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def table(lines: list[str]) -> list[str]:
    return lines[1 : 1 + next(row for row, line in enumerate(lines[1:], 1) if line.startswith("all"))]


@pytest.mark.parametrize("width", [80, 10_000])
def test_the_figures_of_every_class_stand_below_their_split_whatever_its_name_is(width: int) -> None:
    lines = table(printed(report(LABELS), width))
    assert all(cell_len(line) <= width for line in lines)
    ends = {cell_len(line) for line in lines if line.split()[-1:] != [] and line.split()[-1].isdigit()}
    assert ends == {cell_len(lines[0])}  # right-aligned, also behind a character that is two columns wide
    figures = {line.split()[0]: line.split()[-3:] for line in lines}
    assert figures["猫"] == ["1000"] * 3
    assert figures["[red]"] == ["1001"] * 3
    assert figures["all"] == ["3003"] * 3
    name = "".join(lines).replace(" ", "")
    assert all(word in name for word in ("longer", "people", "twiceover"))
    assert "…" not in name


def test_a_report_says_what_was_found_and_stops_after_ten_of_a_kind() -> None:
    bad = [Unreadable(path=f"cat/{n}.txt", code="not_an_image", message="it is text") for n in range(12)]
    odd = [Suspicious(path="cat/white.png", code="one_colour", message="decodes to one color")]
    lines = printed(
        report(
            ["cat", "dog"],
            unreadable=bad,
            suspicious=odd,
            leaks=[["test/cat/1.jpg", "train/cat/1.jpg"]],
            dealt=["val", "test"],
            root="animals",
            passed_over=["README.txt"],
            notes=["read as one class"],
            baseline=Baseline(accuracy=0.5, images=100, seconds=1),
        )
    )
    assert lines[0] == "/data/animals"
    rest = lines[1 + len(table(lines)) :]
    assert rest[:6] == [
        "read from animals/",
        "dealt from train, as the folder has no val and no test",
        "notes: 1",
        "  read as one class",
        "in no class folder, passed over: 1",
        "  README.txt",
    ]
    listed = rest[6:]
    assert listed[0] == "unreadable, skipped: 12"
    assert listed[1] == "  cat/0.txt  not_an_image: it is text"
    assert listed[11:13] == ["  ... and 2 more", "suspicious, used: 1"]
    assert "the same image in more than one split (a leak): 1" in listed
    assert "  test/cat/1.jpg = train/cat/1.jpg" in listed
    assert listed[-2].startswith("baseline: trees on colors and edges, test accuracy 0.5")
    assert listed[-1] == f"fingerprint {'f' * 64}"


@pytest.mark.parametrize(("images", "few"), [(499, True), (500, False)])
def test_few_training_images_are_said_to_be_few(images: int, few: bool) -> None:
    classes = {split: {"cat": images, "dog": images} for split in ("train", "val", "test")}
    found = report(["cat", "dog"], classes=classes, images=dict.fromkeys(classes, 2 * images))
    assert any("training images are few" in line for line in printed(found)) == few
