"""`python -m training`: the command line. Flags come from the pydantic models, help and defaults with them."""

import argparse
import json
import sys
import tempfile
import time
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError
from pydantic_settings import BaseSettings, CliApp, CliPositionalArg, CliSubCommand, SettingsConfigDict
from rich.console import Console
from rich.table import Table

from training.cli_jobs import JobsCommand, Work
from training.config import Architecture, TrainConfig
from training.contract import ContractError, ModelRepository, Preprocessing, Verdict
from training.errors import TrainingError
from training.records import PublishRecord
from training.run import Phase, Run, RunError

# TensorFlow takes seconds to import: each command imports what it needs

console = Console(soft_wrap=True)


class Rejected(TrainingError):
    """Trained, and not good enough to go live."""


class Repository(BaseModel):
    """Which model repository."""

    models: Path = Field(Path("models"), description="folder of the model repository")
    name: str = Field("resnext50", description="model name in the repository")

    @property
    def repository(self) -> ModelRepository:
        return ModelRepository(self.models, self.name)


class Train(TrainConfig):
    """Trains a classifier on a folder of images, verifies and publishes it, and makes it live if it is good enough.

    Any of the flags may stand in a TOML file, named by --config; a flag beats the file.
    """

    data: CliPositionalArg[Path | None] = Field(  # type: ignore[assignment]  # may stand in the TOML file instead
        None, description="DIR/{train,val,test}/<class>/* or DIR/<class>/*, which is split"
    )
    config: Path | None = Field(None, description="TOML file with settings of this command")
    models: Path = Field(Path("models"), description="folder of the model repository")
    run: Path | None = Field(None, description="folder of this run (default: runs/NAME-DATE-TIME)")
    resume: bool = Field(False, description="continue the run in --run from its last checkpoint")

    def cli_cmd(self) -> None:
        own = set(Train.model_fields) - set(TrainConfig.model_fields)
        config = TrainConfig.model_validate(self.model_dump(exclude=own, exclude_none=True))
        if self.resume and not self.run:
            raise RunError("--resume should come with --run, the folder of the run to continue")
        run = Run(self.run or Path("runs") / f"{self.name}-{time.strftime('%Y%m%d-%H%M%S')}")
        run.claim(config, resume=self.resume)
        _run_phases(run, self.models)


class Export(BaseModel):
    """Exports, verifies and publishes the best weights that a run has so far."""

    run: CliPositionalArg[Path] = Field(description="folder of the run")
    models: Path = Field(Path("models"), description="folder of the model repository")

    def cli_cmd(self) -> None:
        run = Run(self.run)
        run.config()  # there is a run
        run.forget("exporting", "verifying", "quantizing", "gating", "publishing")
        _run_phases(run, self.models, skip=("training",))


class Evaluate(Repository):
    """Measures a published version on a folder of images, as it is served: by ONNX Runtime."""

    data: CliPositionalArg[Path] = Field(description="DIR/<class>/*")
    version: int | None = Field(None, description="which version (default: the live one)")
    output: Path | None = Field(None, description="folder for report.json, confusion.png and predictions.png")

    def cli_cmd(self) -> None:
        from training import plots
        from training.classifier import published, read_folder
        from training.datasets.report import Unreadable
        from training.evaluate import evaluate

        manifest, classify = published(self.repository, self.version or _live(self.repository))
        skipped: list[Unreadable] = []
        images, true, names = read_folder(self.data, manifest, skipped.append)
        probabilities = classify(images)
        evaluation = evaluate(manifest.labels, true, probabilities, names)
        console.print(evaluation.render(), markup=False)
        if skipped:
            lines = [f"unreadable, left out: {len(skipped)}", *(f"  {bad}" for bad in skipped)]
            console.print("\n".join(lines), markup=False, highlight=False)
        if self.output:
            self.output.mkdir(parents=True, exist_ok=True)
            (self.output / "report.json").write_text(evaluation.model_dump_json(indent=1))
            plots.plot_confusion(evaluation, manifest.labels, self.output / "confusion.png")
            plots.plot_predictions(images, true, probabilities, manifest.labels, self.output / "predictions.png")


class Predict(Repository):
    """Names what is on images."""

    images: CliPositionalArg[list[Path]] = Field(description="image files")
    version: int | None = Field(None, description="which version (default: the live one)")
    top_k: int = Field(5, ge=1, description="how many classes for each image")
    json_: bool = Field(False, alias="json", description="print JSON, one line an image")

    def cli_cmd(self) -> None:
        from training.classifier import published
        from training.images import decode

        manifest, classify = published(self.repository, self.version or _live(self.repository))
        for path in self.images:
            (probabilities,) = classify(decode(path, manifest.preprocessing)[None])
            top = (-probabilities).argsort()[: self.top_k]
            answer = [(manifest.labels[i], float(probabilities[i])) for i in top]
            if self.json_:
                predictions = [{"label": label, "probability": p} for label, p in answer]
                sys.stdout.write(json.dumps({"file": str(path), "predictions": predictions}, ensure_ascii=False) + "\n")
            else:
                console.print(f"{path}: " + ", ".join(f"{label} {p:.1%}" for label, p in answer), markup=False)


class Summary(BaseModel):
    """The network in figures: output shapes, parameters, multiply-adds."""

    image_size: int = Field(224, ge=32, le=1024, description="height and width of the input in pixels")
    classes: int = Field(1000, ge=2, description="number of classes")
    architecture: Architecture = Architecture()
    layers: bool = Field(False, description="list every layer")
    json_: bool = Field(False, alias="json", description="print JSON")

    def cli_cmd(self) -> None:
        from training import resnext

        size = Preprocessing(height=self.image_size, width=self.image_size)
        model = resnext.build(self.architecture, size, self.classes)
        summary = resnext.summary(model)
        if self.json_:
            sys.stdout.write(json.dumps(summary, indent=2) + "\n")
            return
        if self.layers:
            model.summary(line_length=110)
        shapes = Table("layer", "output", title=summary["name"])
        for name, shape in summary["output_shapes"].items():
            shapes.add_row(name, " x ".join(map(str, shape)))
        console.print(shapes)
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


class List(Repository):
    """Lists the versions and says which is live, and which were taken back and why."""

    def cli_cmd(self) -> None:
        live, failures = self.repository.active(), self.repository.failures()
        table = Table("version", "created", "test accuracy", "classes", "images a second", "parent")
        for version in self.repository.versions():
            manifest = self.repository.manifest(version)
            state = " (live)" if version == live else " (failed)" if version in failures else ""
            speeds = {name: variant.images_per_second for name, variant in manifest.variants.items()}
            table.add_row(
                f"{version}{state}",
                f"{manifest.created:%Y-%m-%d %H:%M}",
                f"{manifest.metrics['test'].accuracy:.4f}",
                str(len(manifest.labels)),
                ", ".join(f"{name} {speed:.1f}" for name, speed in speeds.items() if speed),
                str(manifest.parent or "-"),
            )
        console.print(table)
        for version, failure in sorted(failures.items()):
            told = f"version {version} was taken back {failure.time:%Y-%m-%d %H:%M}: {failure.reason}"
            console.print(told, markup=False, highlight=False)


class Show(Repository):
    """Prints a version's manifest."""

    version: CliPositionalArg[int]

    def cli_cmd(self) -> None:
        sys.stdout.write(self.repository.manifest(self.version).model_dump_json(indent=2) + "\n")


class Activate(Repository):
    """Makes a version live, forward or back."""

    version: CliPositionalArg[int]

    def cli_cmd(self) -> None:
        self.repository.verify_files(self.version)
        self.repository.activate(self.version)
        console.print(f"version {self.version} of {self.name} is live")


class Rollback(Repository):
    """Makes the version live that was live before; twice goes two back."""

    reason: str | None = Field(None, description="why: marks the version as failed, and no rollback comes back to it")

    def cli_cmd(self) -> None:
        live, earlier = _live(self.repository), self.repository.predecessor()
        if earlier is None:
            raise ContractError(f"version {live} of {self.name!r} is live, and there is none to go back to")
        self.repository.verify_files(earlier)
        now = self.repository.roll_back(earlier, bad={live: self.reason} if self.reason else None)
        console.print(f"version {now} of {self.name} is live")


class Prune(Repository):
    """Deletes old versions; never the live one or the one that was live before it."""

    keep: int = Field(5, ge=1, description="how many of the newest versions stay")

    def cli_cmd(self) -> None:
        gone = self.repository.prune(self.keep)
        console.print(f"deleted versions: {', '.join(map(str, gone)) or 'none'}")


class Models(BaseModel):
    """The model repository: what is published, what is live."""

    list: CliSubCommand[List]
    show: CliSubCommand[Show]
    activate: CliSubCommand[Activate]
    rollback: CliSubCommand[Rollback]
    prune: CliSubCommand[Prune]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


class CommandLine(BaseSettings):
    """A folder of images to a published, verified ResNeXt classifier."""

    model_config = SettingsConfigDict(
        cli_prog_name="python -m training",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_enforce_required=True,
        cli_use_class_docs_for_groups=True,
    )

    train: CliSubCommand[Train]
    evaluate: CliSubCommand[Evaluate]
    export: CliSubCommand[Export]
    predict: CliSubCommand[Predict]
    summary: CliSubCommand[Summary]
    dataset: CliSubCommand[Dataset]
    models: CliSubCommand[Models]
    worker: CliSubCommand[Work]
    jobs: CliSubCommand[JobsCommand]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def main(arguments: list[str]) -> int:
    """Runs one command; 0 when it worked, 1 when it could not, 2 when it was asked for wrongly."""
    try:
        CliApp.run(CommandLine, cli_args=arguments, **_settings_file(arguments))
    except ValidationError as error:
        for problem in error.errors():
            # the first part of the location is the command's own name
            place = ".".join(str(part) for part in problem["loc"] if part not in arguments[:1])
            came = "" if problem["type"] == "missing" else f", it is {problem['input']!r}"
            sys.stderr.write(f"error: {place.replace('_', '-')}: {problem['msg']}{came}\n")
        return 2
    except (TrainingError, OSError) as error:  # OSError: a file that is not there, a full disk
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


def _settings_file(arguments: list[str]) -> dict[Literal["train"], Any]:
    """The TOML file that `train --config FILE` names, as values that flags override."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    file = parser.parse_known_args(arguments)[0].config
    if arguments[:1] != ["train"] or not file:
        return {}
    try:
        return {"train": tomllib.loads(file.read_text())}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"--config should name a TOML file, {file} is none: {error}") from None


def _live(repository: ModelRepository) -> int:
    live = repository.active()
    if live is None:
        raise ContractError(f"no version of {repository.name!r} is live in {repository.folder}; train one first")
    return live


def _run_phases(run: Run, models: Path, skip: tuple[Phase, ...] = ()) -> None:
    """Raises Rejected when the gate kept the version aside."""
    from training.phases import run_phases

    repository = ModelRepository(models, run.config().name)
    run_phases(run, repository, console, skip)
    published, verdict = run.record("publishing", PublishRecord), run.record("gating", Verdict)
    if published.version is None:
        console.print("nothing is published: gate.dry_run is set")
        return
    place = repository.path(published.version)
    if not published.active:
        raise Rejected(f"version {published.version} is kept aside in {place}: {'; '.join(verdict.reasons)}")
    console.print(
        f"version {published.version} of {repository.name} is live: test accuracy {verdict.accuracy:.4f}, in {place}",
        highlight=False,
    )


def _made(counts: dict[str, int], folder: Path) -> None:
    console.print(
        f"{sum(counts.values())} images of {len({Path(place).name for place in counts})} classes in {folder}",
        highlight=False,
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
