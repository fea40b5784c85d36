"""`resnext`, and `python -m training`: the command line. Flags come from the pydantic models, help and defaults too."""

from training.system.interrupt import INTERRUPT

if __name__ == "__main__":
    INTERRUPT.watch()  # the imports below take a second, in which Ctrl-C may come

import argparse
import json
import os
import signal
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliPositionalArg,
    CliSettingsSource,
    CliSubCommand,
    SettingsConfigDict,
    SettingsError,
)

from training.cli import terminal as terminal
from training.cli.extra import PACKAGES, missing_extra
from training.cli.jobs import JobsCommand, Work
from training.cli.models import Models as Models
from training.cli.models import Repository, live_version
from training.cli.predict import Predict
from training.cli.runs import RunsCommand
from training.cli.serve import Serve, Tune, become_app
from training.cli.terminal import Heading, console
from training.cli.train import Export, Train
from training.cli.usage import HelpFormatter, mistakes
from training.config import Architecture, TrainConfig
from training.contract.manifest import Preprocessing
from training.errors import TrainingError, UsageError, words_of

# TensorFlow takes seconds to import: each command imports what it needs

PIPE_CLOSED = 128 + signal.SIGPIPE  # as a shell has it

SHAPE_COLUMNS = Heading("layer", "text"), Heading("output", "text")
LAYER_COLUMNS = (
    Heading("layer", "text"),
    Heading("kind", "text"),
    Heading("output", "text"),
    Heading("parameters", "figures"),
)


class Evaluate(Repository):
    """Measures a published version on a folder of images, as it is served: by ONNX Runtime."""

    data: CliPositionalArg[Path] = Field(description="DIR/<class>/*, or DIR/test/<class>/*")
    version: int | None = Field(None, description="which version (default: the live one)")
    split: Literal["train", "val", "test"] | None = Field(
        None, description="only what is, or was when the version was trained, in this split"
    )
    output: Path | None = Field(None, description="folder for report.json, confusion.png and predictions.png")

    def cli_cmd(self) -> None:
        from training.datasets.report import Unreadable
        from training.datasets.seen import rows_of, splits_of, told
        from training.exported import plots
        from training.exported.classifier import folder_to_measure, published, read_folder
        from training.exported.evaluate import evaluate

        repository = self.repository
        version = self.version or live_version(repository)
        manifest, classify = published(repository, version)
        folder, is_split = folder_to_measure(self.data, manifest, self.split)
        skipped: list[Unreadable] = []
        images, true, names = read_folder(folder, manifest, skipped.append)
        splits = splits_of(repository.path(version), folder, manifest.labels, names)
        if self.split and not is_split:
            rows = rows_of(self.split, splits, version)
            images, true, names, splits = images[rows], true[rows], [names[row] for row in rows], None
        if line := told(splits):
            console.print(line, highlight=False)
        probabilities = classify(images)
        evaluation = evaluate(manifest.labels, true, probabilities, names)
        console.print(evaluation.render(console.options.max_width), markup=False)
        if skipped:
            lines = [f"unreadable, left out: {len(skipped)}", *(f"  {bad}" for bad in skipped)]
            console.print("\n".join(lines), markup=False, highlight=False)
        if self.output:
            self.output.mkdir(parents=True, exist_ok=True)
            (self.output / "report.json").write_text(evaluation.model_dump_json(indent=1))
            plots.plot_confusion(evaluation, manifest.labels, self.output / "confusion.png")
            plots.plot_predictions(images, true, probabilities, manifest.labels, self.output / "predictions.png")


class Summary(BaseModel):
    """The network in figures: output shapes, parameters, multiply-adds."""

    image_size: int = Field(224, ge=32, le=1024, description="height and width of the input in pixels")
    classes: int = Field(1000, ge=2, description="number of classes")
    architecture: Architecture = Architecture()
    layers: bool = Field(False, description="list every layer")
    json_: bool = Field(False, alias="json", description="print JSON")

    def cli_cmd(self) -> None:
        from training.network import resnext

        size = Preprocessing(height=self.image_size, width=self.image_size)
        model = resnext.build(self.architecture, size, self.classes)
        summary = resnext.summary(model)
        if self.json_:
            sys.stdout.write(json.dumps(summary, indent=2) + "\n")
            return
        console.print(summary["name"], highlight=False)
        if self.layers:
            terminal.table(LAYER_COLUMNS, resnext.layer_rows(model))
        shapes = [(name, " x ".join(map(str, shape))) for name, shape in summary["output_shapes"].items()]
        terminal.table(SHAPE_COLUMNS, shapes)
        for name, count in summary["parameters"].items():
            console.print(f"{name.replace('_', '-')} parameters: {count:,}")
        console.print(f"multiply-adds an image: {summary['multiply_adds']:,}")


class Check(BaseModel):
    """Reports what a folder of images holds and what is wrong with it, as a training would find it."""

    data: CliPositionalArg[Path] = Field(description="DIR/{train,val,test}/<class>/* or DIR/<class>/*")
    val_fraction: float = TrainConfig.model_fields["val_fraction"].default
    test_fraction: float = TrainConfig.model_fields["test_fraction"].default
    seed: int = TrainConfig.model_fields["seed"].default
    strict: bool = Field(False, description="fail on an unreadable file")
    json_: bool = Field(False, alias="json", description="print JSON")

    def cli_cmd(self) -> None:
        from training.datasets.baseline import baseline
        from training.datasets.dataset import scan, survey

        dataset = scan(self.data, self.val_fraction, self.test_fraction, self.seed)
        report, samples = survey(dataset, Preprocessing(height=224, width=224), strict=self.strict)
        with tempfile.TemporaryDirectory() as cache:
            report = report.model_copy(update={"baseline": baseline(samples, Path(cache))})
        sys.stdout.write((report.model_dump_json(indent=2) if self.json_ else report.render()) + "\n")


class Digits(BaseModel):
    """Writes scikit-learn's 1,797 handwritten digits."""

    folder: CliPositionalArg[Path] = Field(description="new or empty folder")

    def cli_cmd(self) -> None:
        from training.datasets.public import make_digits

        _made(make_digits(self.folder), self.folder)


class FashionMnist(BaseModel):
    """Writes Fashion-MNIST's 70,000 pictures of clothes, from Debian's dataset-fashion-mnist or the network."""

    folder: CliPositionalArg[Path] = Field(description="new or empty folder")
    source: Path | None = Field(None, description="folder with the four idx.gz files")
    train: int | None = Field(None, ge=1, description="keep so many training images")
    val: int | None = Field(None, ge=1, description="keep so many validation images")
    test: int | None = Field(None, ge=1, description="keep so many test images")

    def cli_cmd(self) -> None:
        from training.datasets.public import make_fashion_mnist

        limits = {split: n for split in ("train", "val", "test") if (n := getattr(self, split))}
        _made(make_fashion_mnist(self.folder, self.source, limits), self.folder)


class Flowers(BaseModel):
    """Writes TensorFlow's 3,670 flower photographs."""

    folder: CliPositionalArg[Path] = Field(description="new or empty folder")
    source: Path | None = Field(None, description="a copy of flower_photos.tgz")

    def cli_cmd(self) -> None:
        from training.datasets.public import make_flowers

        _made(make_flowers(self.folder, self.source), self.folder)


class Dataset(BaseModel):
    """Makes folders of real images, and checks yours."""

    digits: CliSubCommand[Digits]
    fashion_mnist: CliSubCommand[FashionMnist]
    flowers: CliSubCommand[Flowers]
    check: CliSubCommand[Check]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


class CommandLine(BaseSettings):
    """A folder of images to a published, verified ResNeXt classifier."""

    model_config = SettingsConfigDict(
        cli_prog_name="resnext",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_enforce_required=True,
        cli_exit_on_error=False,
        cli_use_class_docs_for_groups=True,
    )

    train: CliSubCommand[Train]
    evaluate: CliSubCommand[Evaluate]
    export: CliSubCommand[Export]
    predict: CliSubCommand[Predict]
    summary: CliSubCommand[Summary]
    dataset: CliSubCommand[Dataset]
    models: CliSubCommand[Models]
    runs: CliSubCommand[RunsCommand]
    serve: CliSubCommand[Serve]
    tune: CliSubCommand[Tune]
    worker: CliSubCommand[Work]
    jobs: CliSubCommand[JobsCommand]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def main(arguments: list[str]) -> int:
    """Runs one command; 0 when it worked, 1 when it could not, 2 when it was asked for wrongly."""
    if arguments[:1] == ["tune"]:
        become_app(arguments)
    source = CliSettingsSource[argparse.ArgumentParser](CommandLine, formatter_class=HelpFormatter)
    try:
        CliApp.run(CommandLine, arguments, source, **_settings_file(arguments))
    except (ValidationError, SettingsError, UsageError) as error:
        for line in mistakes(error, source.root_parser, arguments):
            terminal.error(line)
        return 2
    except BrokenPipeError:  # `resnext predict DIR | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be written
        return PIPE_CLOSED
    except (TrainingError, OSError) as error:  # OSError: a file that is not there, a full disk
        terminal.error(terminal.reason(error))
        return 1
    except ModuleNotFoundError as error:
        if not (package := PACKAGES.get((error.name or "").split(".")[0])):
            raise
        terminal.error(missing_extra(" ".join(arguments[:1]), package))
        return 1
    return 0


def _settings_file(arguments: list[str]) -> dict[Literal["train"], Any]:
    """The TOML file that `train --config FILE` names, as values that flags override."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path, nargs="?")  # one without a file is the command's own complaint
    file = parser.parse_known_args(arguments)[0].config
    if arguments[:1] != ["train"] or not file:
        return {}
    try:
        return {"train": _underscored(tomllib.loads(file.read_text("utf-8")))}
    except (OSError, ValueError) as error:  # ValueError: no TOML, or no UTF-8
        raise TrainingError(f"--config should name a TOML file, {file} is none: {words_of(error)}") from None


def _underscored(table: dict[str, Any]) -> dict[str, Any]:
    """The table with names as fields have them: `image-size`, as the flag is called, is image_size."""
    return {
        name.replace("-", "_"): _underscored(value) if isinstance(value, dict) else value
        for name, value in table.items()
    }


def _made(counts: dict[str, int], folder: Path) -> None:
    console.print(
        f"{sum(counts.values())} images of {len({Path(place).name for place in counts})} classes in {folder}",
        highlight=False,
    )


if __name__ == "__main__":
    INTERRUPT.run(main)
