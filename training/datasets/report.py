"""What is in a dataset and what is wrong with it: for the terminal, for HTTP and for the job's record."""

import unicodedata
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from training.contract.intervals import Proportion
from training.errors import words_of
from training.images.decode import ImageError

FEW_TRAINING = 1000  # images, of all classes
NAME_WIDTH = 48  # columns of a class's name; its figures take the rest of 80


class Finding(BaseModel):
    """A file of the dataset that a person should look at: a code for programs and a sentence for the person."""

    path: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}  {self.code}: {self.message}"


class Unreadable(Finding):
    """A file that gives no image. `code` is an `ImageError`'s, or unreadable_file."""

    @classmethod
    def of(cls, path: str, error: ImageError | OSError) -> Self:
        """Returns the finding for the error that `decode` or the disk raised."""
        if isinstance(error, ImageError):
            return cls(path=path, code=error.code, message=error.message)
        return cls(path=path, code="unreadable_file", message=words_of(error))


class Suspicious(Finding):
    """A file that gives an image and is used, though the image is hardly what was meant.

    `code` is one_colour, almost_black, almost_white or same_picture.
    """


class Baseline(BaseModel):
    """What extremely randomised trees on colour histograms and gradients reach on test images: no network."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    images: int = Field(description="test images, at most 1,000")
    seconds: float

    def render(self) -> str:
        """The accuracy in a phrase."""
        return f"trees on colours and edges, test accuracy {Proportion.of(self.accuracy, self.images)}"


class DatasetReport(BaseModel):
    """What a dataset holds and what is wrong with it. Files are named by their path in the dataset's folder."""

    model_config = ConfigDict(frozen=True)

    folder: str
    labels: list[str]
    images: dict[str, int] = Field(description="readable images by split")
    classes: dict[str, dict[str, int]] = Field(description="readable images by split and label")
    unreadable: list[Unreadable] = Field(description="files that were skipped, and why")
    duplicates: list[list[str]] = Field(description="files of the same bytes within one split")
    leaks: list[list[str]] = Field(description="files of the same bytes in more than one split")
    conflicts: list[list[str]] = Field(description="files of the same bytes under more than one label")
    fingerprint: str = Field(description="SHA-256 over path and content of every readable image")
    baseline: Baseline | None = Field(None, description="what a network has to be better than; measured for a training")
    suspicious: list[Suspicious] = Field(
        [], description="files that are used, though the picture that the network sees is hardly what was meant"
    )
    root: str = Field("", description="the folder inside that was read, where one lies around all")
    dealt: list[str] = Field([], description="splits that the folder lacks, dealt from its train")
    passed_over: list[str] = Field([], description="files in no class folder, which were not read")
    notes: list[str] = Field([], description="what was read in one of two ways, and in which")

    def render(self, most: int = 10) -> str:
        """A table of the counts, then at most `most` of each kind of trouble."""
        heads = ["class", *self.images]
        rows = [[label, *(str(self.classes[split][label]) for split in self.images)] for label in self.labels]
        rows.append(["all", *map(str, self.images.values())])
        parts = [self.folder, _table([heads, *rows])]
        parts += [f"read from {self.root}/"] if self.root else []
        parts += [f"dealt from train, as the folder has no {' and no '.join(self.dealt)}"] if self.dealt else []
        parts += _listing("to know", self.notes, most)
        parts += _listing("in no class folder, passed over", self.passed_over, most)
        parts += _listing("unreadable, skipped", list(map(str, self.unreadable)), most)
        parts += _listing("suspicious, used", list(map(str, self.suspicious)), most)
        parts += _listing("the same image in more than one split (a leak)", _joined(self.leaks), most)
        parts += _listing("the same image under more than one label", _joined(self.conflicts), most)
        parts += _listing("the same image more than once in a split", _joined(self.duplicates), most)
        parts += self._expectations()
        return "\n".join([*parts, f"fingerprint {self.fingerprint}"])

    def _expectations(self) -> list[str]:
        """What so many images allow."""
        train, test = self.images["train"], self.images["test"]
        low, high = Proportion.of(0.8, test).interval
        lines = [f"{test} test images: an accuracy of 0.80 on them means {low:.2f} to {high:.2f} (95 %)"]
        if train < FEW_TRAINING:
            lines.append(
                f"{train} training images are few for a network from random weights: compare it with a baseline"
            )
        if self.baseline:
            lines.append(f"baseline: {self.baseline.render()}")
        return lines

    def __str__(self) -> str:
        return self.render()


def _joined(groups: list[list[str]]) -> list[str]:
    return [" = ".join(group) for group in groups]


def _listing(title: str, lines: list[str], most: int) -> list[str]:
    if not lines:
        return []
    more = [f"  ... and {len(lines) - most} more"] if len(lines) > most else []
    return [f"{title}: {len(lines)}", *(f"  {line}" for line in lines[:most]), *more]


def _table(rows: list[list[str]]) -> str:
    """First column to the left, the others to the right; a CJK character is two columns wide."""
    rows = [line for row in rows for line in _folded(row)]
    widths = [max(_width(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell + pad if i == 0 else pad + cell
            for i, cell in enumerate(row)
            for pad in [" " * (widths[i] - _width(cell))]
        )
        for row in rows
    )


def _folded(row: list[str]) -> list[list[str]]:
    """The row's lines: a long name goes on in those below, so that the table fits a terminal."""
    parts = [""]
    for char in row[0]:
        if _width(parts[-1] + char) > NAME_WIDTH:
            parts.append("")
        parts[-1] += char
    return [[parts[0], *row[1:]], *([part, *[""] * (len(row) - 1)] for part in parts[1:])]


def _width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
