"""`resnext evaluate`: measures a published version on a folder of images."""

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import CliPositionalArg

from training.cli.models import OneModel, active_version
from training.cli.terminal import console


class Evaluate(OneModel):
    """Measures a published version on a folder of images. It runs as it is served: in ONNX Runtime."""

    data: CliPositionalArg[Path] = Field(description="DIR/<class>/*, or DIR/test/<class>/*")
    version: int | None = Field(None, description="number of the version (default: the active one)")
    split: Literal["train", "val", "test"] | None = Field(
        None, description="only images that are in this split, or were when the version was trained"
    )
    output: Path | None = Field(None, description="folder for report.json, confusion.png and predictions.png")

    def cli_cmd(self) -> None:
        from training.datasets.report import Unreadable
        from training.datasets.seen import rows_of, splits_of, training_note
        from training.exported import plots
        from training.exported.classifier import folder_to_measure, published, read_folder
        from training.exported.evaluate import evaluate

        repository = self.repository
        version = self.version or active_version(repository)
        manifest, classify = published(repository, version)
        folder, is_split = folder_to_measure(self.data, manifest, self.split)
        skipped: list[Unreadable] = []
        images, true, names = read_folder(folder, manifest, skipped.append)
        splits = splits_of(repository.path(version), folder, manifest.labels, names)
        if self.split and not is_split:
            rows = rows_of(self.split, splits, version)
            images, true, names, splits = images[rows], true[rows], [names[row] for row in rows], None
        if line := training_note(splits):
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
