"""`resnext weights`: published weights in and out, and what lies in their folder."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, Field, FiniteFloat
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand

from training.cli import terminal
from training.cli.extra import require_extra
from training.cli.models import OneModel, active_version
from training.cli.publish_weights import PublishWeights
from training.cli.pull_weights import CheckWeights, PullWeights
from training.cli.terminal import Heading, console
from training.cli.weights_folder import OneWeights, WeightsFolder
from training.config import flag
from training.contract.activation import is_version
from training.contract.architecture import name_of
from training.contract.manifest import Preprocessing
from training.contract.names import Name
from training.errors import TrainingError, UsageError
from training.jobs.settings import SharedSettings
from training.runs.run import Run
from training.system.durable import fsync
from training.system.staging import STAGING_PREFIX
from training.weights.presets import PRESETS, preset_named
from training.weights.store import DEFAULT_WEIGHTS, WeightsRecord

# safetensors is in the extra `train`; TensorFlow takes seconds to import
if TYPE_CHECKING:
    from training.weights.importing import Description

COLUMNS = (
    Heading("name", "text"),
    Heading("network", "words"),
    Heading("images", "words"),
    Heading("classes", "figures"),
    Heading("licence", "text"),
    Heading("origin", "text"),
    Heading("size", "whole"),
)
MEAN, STD = (Preprocessing.model_fields[name].default for name in ("mean", "std"))


Spread = Annotated[FiniteFloat, Field(gt=0)]


class ImportWeights(WeightsFolder):
    """Takes a .safetensors file in, in torchvision's or timm's names.

    --preset says all that is known of a published file. Without it --image-size, --labels, --licence and --origin have
    to say it. The network's depths and widths come from the file.
    """

    file: CliPositionalArg[Path] = Field(description="the .safetensors file; it is copied")
    preset: str | None = Field(None, description=f"published weights that the file holds: {', '.join(PRESETS)}")
    name: Name | None = Field(None, description="name of the weights here (default: the preset, or the file's name)")
    image_size: int | None = Field(None, ge=32, le=1024, description="height and width of the images in pixels")
    resize: int | None = Field(
        None, ge=32, le=4096, description="short side before the crop in pixels (default: the crop is the whole image)"
    )
    resize_mode: Literal["crop", "squash", "pad"] = Field("crop", description="how an image is made square")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field("bilinear", description="of the resize")
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat] = Field(
        MEAN, description="of red, green and blue, where white is 1"
    )
    std: tuple[Spread, Spread, Spread] = Field(STD, description="of red, green and blue, where white is 1")
    labels: Path | None = Field(None, description="text file with the classes, one a line, in the head's order")
    licence: str | None = Field(None, min_length=1, description="the licence's name, as apache-2.0")
    origin: str | None = Field(None, min_length=1, description="where the file is from, in a few words")
    allow_noncommercial: bool = Field(False, description="take weights whose licence forbids commercial use")

    def cli_cmd(self) -> None:
        require_extra("weights import")
        from training.weights.importing import import_file

        description = self._described_by_preset(self.preset) if self.preset else self._described_by_flags()
        name = self.name or self.preset or self.file.stem
        record = import_file(self.store, self.file, name, description, allow_noncommercial=self.allow_noncommercial)
        _say(f"weights {record.name}: {_network(record)}, {len(record.labels)} classes, licence {record.licence}")
        _say(f"SHA-256 {record.sha256}, in {self.store.folder}")

    def _described_by_preset(self, name: str) -> "Description":
        from training.weights.importing import description_of

        told = {"resize", "resize_mode", "interpolation", "mean", "std", "labels", "licence"} & self.model_fields_set
        if told:
            flags = ", ".join(map(flag, sorted(told)))
            raise UsageError(f"--preset says already what {flags} would say: leave out one or the other")
        preset = preset_named(name)
        origin = self.origin or f"{self.file.name}, imported as {preset.hub}"
        return description_of(preset, self.image_size, origin=origin)

    def _described_by_flags(self) -> "Description":
        from training.weights.importing import Description, read_labels

        size, labels, licence, origin = self.image_size, self.labels, self.licence, self.origin
        if size is None or labels is None or licence is None or origin is None:
            raise UsageError(
                f"weights import needs --preset ({', '.join(PRESETS)}), or all of --image-size, --labels, --licence "
                "and --origin"
            )
        if self.resize and (self.resize_mode != "crop" or self.resize < size):
            raise UsageError("--resize is for --resize-mode crop, and should be at least --image-size")
        preprocessing = Preprocessing(
            height=size,
            width=size,
            resize_mode=self.resize_mode,
            resize=self.resize,
            interpolation=self.interpolation,
            mean=self.mean,
            std=self.std,
        )
        return Description(origin, licence, preprocessing, read_labels(labels))


class ListWeights(WeightsFolder):
    """Lists the weights, with their licence and origin."""

    def cli_cmd(self) -> None:
        names = self.store.names()
        if not names:
            _say(
                f"there are no weights in {self.store.folder}: resnext weights pull {DEFAULT_WEIGHTS} downloads some, "
                "resnext weights import FILE takes yours in"
            )
            return
        rows, damages = [], []
        for name in names:
            try:
                rows.append(_row(self.store.record(name), self.store.file(name)))
            except TrainingError as error:
                rows.append((name, "damaged", *"-" * 5))
                damages.append(str(error))
        terminal.table(COLUMNS, rows)
        for damage in damages:
            _say(damage)


class ShowWeights(OneWeights):
    """Prints the record of weights, after their file was compared with its SHA-256."""

    def cli_cmd(self) -> None:
        record = self.store.record(self.name)
        self.store.verified_file(self.name)
        sys.stdout.write(record.model_dump_json(indent=2) + "\n")


class RemoveWeights(OneWeights):
    """Deletes weights. Versions that were trained from them stay."""

    def cli_cmd(self) -> None:
        self.store.remove(self.name)
        _say(f"weights {self.name} are removed from {self.store.folder}")


class ExportWeights(WeightsFolder):
    """Writes the weights of a model, a run or published ones as .safetensors, in torchvision's and timm's names.

    torchvision's and timm's networks load the file with strict=True.
    """

    what: CliPositionalArg[str] = Field(
        description="MODEL, its active version; MODEL@VERSION; a run's folder; or the name of published weights"
    )
    file: CliPositionalArg[Path] = Field(description="the file to write; it must not exist")
    models: Path | None = Field(
        None, description="folder of the model repository (default: RESNEXT_MODELS, else models)"
    )

    def cli_cmd(self) -> None:
        require_extra("weights export")
        if self.file.exists():
            raise TrainingError(f"{self.file} is there already: name another file")
        if not self.file.parent.is_dir():
            raise TrainingError(f"{self.file.parent} should be a folder, for {self.file.name}; there is none")
        with tempfile.TemporaryDirectory(dir=self.file.parent, prefix=STAGING_PREFIX) as folder:
            made = Path(folder) / "tensors"
            said = self._write(made)
            fsync(made)
            made.rename(self.file)
        _say(f"{said} in {self.file}, {terminal.size(self.file.stat().st_size)}")

    def _write(self, target: Path) -> str:
        """Writes the tensors, and returns what they are."""
        from training.network.published_weights import tensors_of_run, tensors_of_version
        from training.weights.tensors import write_tensors

        run, (model, at, number) = Run(Path(self.what)), self.what.partition("@")
        if run.config_file.exists():
            write_tensors(target, tensors_of_run(run))
            return f"the best weights of the run {run.folder} are"
        if not at and self._is_published(model):
            shutil.copyfile(self.store.verified_file(model), target)
            return f"the published weights {model} are"
        repository = OneModel(models=self.models or SharedSettings().models, name=model).repository
        version = _number(number) if at else active_version(repository)
        write_tensors(target, tensors_of_version(repository, version))
        return f"the weights of {model}, version {version}, are"

    def _is_published(self, name: str) -> bool:
        """Whether published weights have the name, and no model. Raises TrainingError when both or neither have it."""
        models, weights = self.models or SharedSettings().models, self.store.names()
        is_model, is_weights = (models / name).is_dir(), name in weights
        if is_model and is_weights:
            raise TrainingError(f"{name!r} is a model and published weights as well: {name}@VERSION is the model's")
        if not is_model and not is_weights:
            raise TrainingError(
                f"{name!r} should be a model in {models}, the folder of a run, or weights in {self.store.folder}, "
                f"which has {', '.join(weights) or 'none'}"
            )
        return is_weights


class WeightsCommand(BaseModel):
    """Takes published weights in, lists them, serves them, and writes a model's weights for torchvision and timm."""

    import_: CliSubCommand[ImportWeights] = Field(alias="import")
    pull: CliSubCommand[PullWeights]
    check: CliSubCommand[CheckWeights]
    list: CliSubCommand[ListWeights]
    show: CliSubCommand[ShowWeights]
    remove: CliSubCommand[RemoveWeights]
    export: CliSubCommand[ExportWeights]
    publish: CliSubCommand[PublishWeights]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def _row(record: WeightsRecord, file: Path) -> tuple[str, ...]:
    return (
        record.name,
        name_of(record.architecture),
        _images(record.preprocessing),
        str(len(record.labels)),
        record.licence,
        record.origin + (f" at {record.revision[:7]}" if record.revision else ""),
        terminal.size(file.stat().st_size),
    )


def _network(record: WeightsRecord) -> str:
    return f"{name_of(record.architecture)}, images of {_images(record.preprocessing)}"


def _images(preprocessing: Preprocessing) -> str:
    """Returns `224 of 256, bilinear`."""
    resize = f" of {preprocessing.resize}" if preprocessing.resize else f", {preprocessing.resize_mode}"
    return f"{preprocessing.height}{resize}, {preprocessing.interpolation}"


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False)


def _number(text: str) -> int:
    """Returns the number of a version. Raises UsageError."""
    if not is_version(text):
        raise UsageError(f"a version should be a number, as in resnext50@3, got {text!r}")
    return int(text)
