"""The report of a dataset's check: for the terminal, for HTTP and for the job's record."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from training.contract.intervals import Proportion
from training.errors import words_of
from training.images.decode import ImageError


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
    """The accuracy of extremely randomized trees on colors and edges of the test images: no network."""

    model_config = ConfigDict(frozen=True)

    accuracy: float
    images: int = Field(description="test images, at most 1,000")
    seconds: float

    def render(self) -> str:
        """Returns the accuracy in a phrase."""
        return f"trees on colors and edges, test accuracy {Proportion.of(self.accuracy, self.images)}"


class DatasetReport(BaseModel):
    """The contents of a dataset and what is wrong with it. Files are named by their path in the dataset's folder."""

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
    root: str = Field("", description="the folder inside that was read, where the dataset lies deeper")
    dealt: list[str] = Field([], description="splits that the folder lacks, dealt from its train")
    passed_over: list[str] = Field([], description="files in no class folder, which were not read")
    notes: list[str] = Field([], description="what could be read in two ways, and how it was read")
