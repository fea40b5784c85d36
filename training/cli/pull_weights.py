"""`resnext weights pull` and `resnext weights check`: weights from the hub, and whether they see what there is."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from pydantic_settings import CliPositionalArg
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from training.cli import terminal
from training.cli.extra import require_extra
from training.cli.terminal import Heading, console
from training.cli.weights_folder import OneWeights, WeightsFolder
from training.contract.names import Name
from training.system.interrupt import INTERRUPT
from training.weights.known_photos import KNOWN_PHOTOS, Opinion, has_known_labels
from training.weights.presets import PRESETS
from training.weights.store import WeightsRecord

# the extras `train` and `hub`; TensorFlow takes seconds to import
if TYPE_CHECKING:
    from training.weights import download
    from training.weights.importing import Description

LINE_EVERY_S = 10.0  # between lines, without a terminal to draw a bar on
COLUMNS = (
    Heading("photo", "text"),
    Heading("first label", "text"),
    Heading("probability", "figures"),
    Heading("", "words"),
)


class PullWeights(WeightsFolder):
    """Downloads published weights from the Hugging Face hub or an address, and tries them on photos of known things.

    HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE and HTTPS_PROXY have their usual meaning. A transfer that broke off goes on
    where it was.
    """

    source: CliPositionalArg[str] = Field(
        description="a repository on the hub, as timm/resnext50_32x4d.tv_in1k, a preset's name, or an address (https://...)"
    )
    preset: str | None = Field(
        None, description=f"what is known of the file, where the source does not say it: {', '.join(PRESETS)}"
    )
    name: Name | None = Field(None, description="name of the weights here (default: the preset's, or the repository's)")
    revision: str | None = Field(None, description="branch, tag or commit on the hub (default: main)")
    image_size: int | None = Field(None, description="height and width of the images, where the preset has several")
    allow_noncommercial: bool = Field(False, description="take weights whose licence forbids commercial use")

    def cli_cmd(self) -> None:
        require_extra("weights pull", "hub")
        require_extra("weights pull")
        from training.weights.hub import pull, source_of

        source = source_of(self.source, self.preset, self.name, self.revision, self.image_size)
        if not source.is_address:
            INTERRUPT.says(lambda: "stopped; the same command goes on from what came")
        opinions: list[Opinion] = []

        def judge(file: Path, description: "Description") -> None:
            from training.network.weights_check import check_on_photos

            _say(f"trying them on {len(KNOWN_PHOTOS)} photos of known things")
            opinions.extend(check_on_photos(source.name, file, description.preprocessing, description.labels))

        with _shown(source.name) as progress:
            pulled = pull(self.store, source, progress, judge, allow_noncommercial=self.allow_noncommercial)
        _describe(pulled.record)
        if pulled.note:
            _say(f"they were here already, with the right SHA-256; {pulled.note}")
        if opinions:
            _say(f"they say of {'; '.join(map(str, opinions))}")


class CheckWeights(OneWeights):
    """Tries weights with ImageNet's labels on photos of known things. Those that name too few are moved aside."""

    def cli_cmd(self) -> None:
        require_extra("weights check")
        from training.network.weights_check import check_on_photos

        store = self.store
        record, file = store.record(self.name), store.verified_file(self.name)
        if not has_known_labels(record.labels):
            _say(f"the file of {record.name} has its SHA-256. Its labels are not ImageNet's, so no photo is at hand")
            return
        with store.keeping_rejected(record.name, file):
            opinions = check_on_photos(record.name, file, record.preprocessing, record.labels)
        terminal.table(COLUMNS, [_row(opinion) for opinion in opinions])


@contextlib.contextmanager
def _shown(name: str) -> Iterator["download.Progress"]:
    """Yields a function that shows how much is here: as a bar on a terminal, else as a line every few seconds."""
    animated = console.is_terminal and not console.is_dumb_terminal  # a dumb terminal cannot draw over a line
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not animated,
        transient=True,
    )
    task = bar.add_task(name, total=None)
    begun: int | None = None
    printed = time.monotonic()

    def progress(received: int, total: int | None) -> None:
        nonlocal begun, printed
        if begun is None and not animated:
            _say(f"downloading {terminal.size(total) if total else 'a file'} as {name}")
        if begun is None or received <= begun:  # a transfer begins: what was there already came at no speed
            begun = received
            bar.reset(task, total=total, completed=received)
        else:
            bar.update(task, completed=received)
        if received == total:
            bar.stop()
        elif not animated and (now := time.monotonic()) - printed >= LINE_EVERY_S:
            printed = now
            _say(f"{name}: {terminal.size(received)}" + (f" of {terminal.size(total)}" if total else ""))

    with bar:
        yield progress


def _describe(record: WeightsRecord) -> None:
    at = f" at {record.revision[:7]}" if record.revision else ""
    _say(f"weights {record.name}: {record.origin}{at}, {terminal.size(record.bytes)}, licence {record.licence}")
    _say(f"SHA-256 {record.sha256}")


def _row(opinion: Opinion) -> tuple[str, str, str, str]:
    verdict = "right" if opinion.right else f"expected {' or '.join(sorted(opinion.photo.labels))}"
    return opinion.photo.file, opinion.label, f"{opinion.probability:.3f}", verdict


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False)
