"""`resnext predict`: classifies images, and prints text, JSON or CSV."""

import csv
import glob
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from pydantic import Field
from pydantic_settings import CliPositionalArg

from training.cli import terminal
from training.cli.models import OneModel, active_version
from training.cli.terminal import console
from training.datasets.listing import files_below, text
from training.errors import TrainingError, UsageError, words_of

Answer = list[tuple[str, float]]  # label and probability, the most probable first


class FilesFailed(TrainingError):
    """Files that cannot be read as images, or no files at all."""


class Predict(OneModel):
    """Classifies images: prints the most probable classes of each."""

    images: CliPositionalArg[list[str]] = Field(
        description="image files, folders of images, or patterns such as 'a/*.jpg'"
    )
    version: int | None = Field(None, description="number of the version (default: the active one)")
    top_k: int = Field(5, ge=1, description="how many classes for each image")
    json_: bool = Field(False, alias="json", description="print JSON, one line per image")
    csv_: bool = Field(False, alias="csv", description="print CSV: file,label,probability,label_2,probability_2,...")

    def cli_cmd(self) -> None:
        if self.json_ and self.csv_:
            raise UsageError("choose --json or --csv, not both")
        from training.exported.classifier import published
        from training.images.decode import ImageError, decode

        repository = self.repository
        manifest, classify = published(repository, self.version or active_version(repository))
        top_k = min(self.top_k, len(manifest.labels))
        write = _csv(top_k) if self.csv_ else _json if self.json_ else _text
        files = failed = 0
        for path in (path for named in self.images for path in files_of(named)):
            files += 1
            try:
                (probabilities,) = classify(decode(path, manifest.preprocessing)[None])
            except (ImageError, OSError) as error:
                failed += 1
                terminal.error(f"{text(str(path))}: {words_of(error)}")
                continue
            top = (-probabilities).argsort()[:top_k]
            write(text(str(path)), [(manifest.labels[i], float(probabilities[i])) for i in top])
        if not files:
            raise FilesFailed(f"there are no files in {', '.join(self.images)}")
        if failed:
            raise FilesFailed(f"{failed} of {files} {'file' if files == 1 else 'files'} cannot be read as an image")


class Writer(Protocol):
    """A function that prints the answer for one file."""

    def __call__(self, file: str, answer: Answer) -> None: ...


def files_of(named: str) -> Iterator[Path]:
    """Yields the file of that name, all files below that folder, or all that match the pattern, sorted.

    A name that matches nothing is yielded as it is: opening it says what is wrong.
    """
    found = [] if os.path.lexists(named) else sorted(glob.glob(named, recursive=True))
    for path in map(Path, found or [named]):
        if path.is_dir():
            yield from sorted(files_below(path))
        else:
            yield path


def _text(file: str, answer: Answer) -> None:
    console.print(f"{file}: " + ", ".join(f"{label} {p:.1%}" for label, p in answer), markup=False, highlight=False)


def _json(file: str, answer: Answer) -> None:
    predictions = [{"label": label, "probability": p} for label, p in answer]
    sys.stdout.write(json.dumps({"file": file, "predictions": predictions}, ensure_ascii=False) + "\n")


def _csv(top_k: int) -> Writer:
    rows = csv.writer(sys.stdout, lineterminator="\n")
    more = [f"{name}_{k}" for k in range(2, top_k + 1) for name in ("label", "probability")]
    rows.writerow(["file", "label", "probability", *more])

    def write(file: str, answer: Answer) -> None:
        rows.writerow([file, *(part for label, p in answer for part in (label, f"{p:.6f}"))])

    return write
