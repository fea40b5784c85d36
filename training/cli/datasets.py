"""`resnext dataset`: makes folders of real images, and checks a folder of yours."""

import sys
import tempfile
from pathlib import Path

from pydantic import BaseModel, Field
from pydantic_settings import CliApp, CliPositionalArg, CliSubCommand

from training.cli.terminal import console
from training.config import DATA, TrainConfig
from training.contract.manifest import Preprocessing


class CheckDataset(BaseModel):
    """Reports what a folder of images holds and what is wrong with it, as a training would find it."""

    data: CliPositionalArg[Path] = Field(description=DATA)
    val_fraction: float = TrainConfig.model_fields["val_fraction"].default
    test_fraction: float = TrainConfig.model_fields["test_fraction"].default
    seed: int = TrainConfig.model_fields["seed"].default
    strict: bool = Field(False, description="fail on an unreadable file")
    json_: bool = Field(False, alias="json", description="print JSON")

    def cli_cmd(self) -> None:
        from training.datasets.baseline import baseline
        from training.datasets.check import check_dataset
        from training.datasets.dataset import list_dataset
        from training.datasets.kept_pixels import PixelWriter
        from training.runs.report_table import print_report

        dataset = list_dataset(self.data, self.val_fraction, self.test_fraction, self.seed)
        preprocessing = Preprocessing(height=224, width=224)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            with PixelWriter(folder, preprocessing, len(dataset.samples)) as pixels:
                report, samples = check_dataset(dataset, preprocessing, strict=self.strict, keep=pixels.add)
            report = report.model_copy(update={"baseline": baseline(samples, preprocessing, folder)})
        if self.json_:
            sys.stdout.write(report.model_dump_json(indent=2) + "\n")
        else:
            print_report(report, console)


class MakeDigits(BaseModel):
    """Writes scikit-learn's 1,797 handwritten digits."""

    folder: CliPositionalArg[Path] = Field(description="new or empty folder")

    def cli_cmd(self) -> None:
        from training.datasets.public import make_digits

        _say_made(make_digits(self.folder), self.folder)


class MakeFashionMnist(BaseModel):
    """Writes Fashion-MNIST's 70,000 pictures of clothes, from Debian's dataset-fashion-mnist or the network."""

    folder: CliPositionalArg[Path] = Field(description="new or empty folder")
    source: Path | None = Field(None, description="folder with the four idx.gz files")
    train: int | None = Field(None, ge=1, description="keep this many training images")
    val: int | None = Field(None, ge=1, description="keep this many validation images")
    test: int | None = Field(None, ge=1, description="keep this many test images")

    def cli_cmd(self) -> None:
        from training.datasets.public import make_fashion_mnist

        limits = {split: n for split in ("train", "val", "test") if (n := getattr(self, split))}
        _say_made(make_fashion_mnist(self.folder, self.source, limits), self.folder)


class MakeFlowers(BaseModel):
    """Writes TensorFlow's 3,670 flower photographs."""

    folder: CliPositionalArg[Path] = Field(description="new or empty folder")
    source: Path | None = Field(None, description="a copy of flower_photos.tgz")

    def cli_cmd(self) -> None:
        from training.datasets.public import make_flowers

        _say_made(make_flowers(self.folder, self.source), self.folder)


class DatasetCommand(BaseModel):
    """Makes folders of real images, and checks a folder of yours."""

    digits: CliSubCommand[MakeDigits]
    fashion_mnist: CliSubCommand[MakeFashionMnist]
    flowers: CliSubCommand[MakeFlowers]
    check: CliSubCommand[CheckDataset]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def _say_made(counts: dict[str, int], folder: Path) -> None:
    console.print(
        f"{sum(counts.values())} images of {len({Path(place).name for place in counts})} classes in {folder}",
        highlight=False,
        markup=False,
    )
