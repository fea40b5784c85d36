"""How a network runs on this machine. It holds for the later versions, which differ in their weights alone."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from training.contract.manifest import Precision
from training.system.durable import replace_text
from training.system.locks import exclusive


class Curve(BaseModel):
    """Seconds of a run by batch size, ascending, and `batch`, the images that a run gets at most."""

    model_config = ConfigDict(frozen=True)

    seconds: dict[int, float]
    batch: int

    def rate(self, runs: int = 1) -> float:
        """Returns the best images/s of this many runs at once."""
        return max(runs * size / seconds for size, seconds in self.seconds.items())


class Measured(BaseModel):
    """The best way to run a network. `speeds` are images/s of each precision tried, on a CPU in one thread.

    `alone` is of one run at a time. `crowd` is of what runs when many images wait: of the slowest of all streams, in
    CPU seconds, or `alone` again.
    """

    model_config = ConfigDict(frozen=True)

    precision: Precision
    speeds: dict[Precision, float]
    alone: Curve
    crowd: Curve


class Measurements:
    """The measurements of this process by network. Processes that share a folder share their measurements.

    Processes must not choose a precision each for itself: where two are about as fast, one process would answer in INT8
    and the next in float32.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._kept: dict[str, Measured] = {}

    @contextmanager
    def of(self, network: str) -> Iterator[Measured | None]:
        """Yields what is known of a network. Where nothing is, other processes wait until the block ends.

        The block may `keep` what it measures.
        """
        known = self._find(network)
        if known is None and self._folder:
            with exclusive(self._folder / "measured.lock"):
                known = self._find(network)
                if known is None:
                    yield None
                    return
        yield known

    def keep(self, network: str, measured: Measured) -> None:
        """Keeps what was measured of a network for all later loads."""
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
