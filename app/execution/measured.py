"""What a network was seen to do on this machine: it holds for its later versions, whose weights alone differ."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel

from training.contract.manifest import Precision
from training.system.durable import replace_text
from training.system.locks import exclusive


class Measured(BaseModel):
    """`speeds` are images/s by precision; the curves are seconds by batch size, of one run at a time and of streams."""

    precision: Precision
    speeds: dict[str, float]
    curve: dict[int, float]
    max_batch: int
    stream_curve: dict[int, float]
    stream_batch: int


class Measurements:
    """By network, of this process; with a folder, of all the processes that share it.

    They must not choose each for itself: where two precisions are about as fast, one process would answer in INT8 and
    the next in float32.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._kept: dict[str, Measured] = {}

    @contextmanager
    def of(self, network: str) -> Iterator[Measured | None]:
        """What is known. Where that is nothing, other processes wait for the block's end, and what it may `keep`."""
        known = self._find(network)
        if known is None and self._folder:
            with exclusive(self._folder / "measured.lock"):
                known = self._find(network)
                if known is None:
                    yield None
                    return
        yield known

    def keep(self, network: str, measured: Measured) -> None:
        """For all that come later."""
        self._kept[network] = measured
        if self._folder:
            replace_text(self._file(self._folder, network), measured.model_dump_json())

    def _find(self, network: str) -> Measured | None:
        if network not in self._kept and self._folder and (file := self._file(self._folder, network)).exists():
            self._kept[network] = Measured.model_validate_json(file.read_bytes())
        return self._kept.get(network)

    @staticmethod
    def _file(folder: Path, network: str) -> Path:
        return folder / f"measured-{hashlib.sha256(network.encode()).hexdigest()[:16]}.json"
