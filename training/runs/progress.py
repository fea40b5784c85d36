"""How far a run is: `progress.jsonl` for other processes, lines for the person watching."""

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from training.runs.run import Phase

RECORD_EVERY_S = 1.0


class ProgressLog:
    """Appends one JSON object a line to `progress.jsonl`; `time` is Unix seconds.

    `event` is phase (one begins), done (it ended well), files (read so far), step or epoch.
    """

    def __init__(self, path: Path, console: Console) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.console = console
        self.recorded = 0.0
        _drop_torn_line(path)

    def write(self, event: str, **fields: Any) -> None:
        """Appends a line; readers see whole lines only, each is written at once."""
        with self.path.open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), "event": event, **fields}) + "\n")

    def write_now_and_then(self, event: str, **fields: Any) -> None:
        """Appends a line when the last one of these is a second old."""
        if (now := time.monotonic()) - self.recorded >= RECORD_EVERY_S:
            self.recorded = now
            self.write(event, **fields)

    def phase(self, name: Phase, message: str) -> None:
        """A new phase of the run has begun."""
        self.write("phase", phase=name)
        self.console.print(f"[bold]{name}[/bold] {message}", highlight=False)

    def tell(self, message: str) -> None:
        """A line for the person watching."""
        self.console.print(message, markup=False, highlight=False)

    def files(self, done: int, total: int) -> None:
        """So many files are read."""
        self.write_now_and_then("files", done=done, total=total)


def duration(seconds: float) -> str:
    """`75` as `1:15`, `4000` as `1:06:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _drop_torn_line(path: Path) -> None:
    """Cuts off what a crash left of a line."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        file.seek(max(0, path.stat().st_size - 4096))  # a line is some 300 bytes
        start, end = file.tell(), file.read()
        file.truncate(start + end.rfind(b"\n") + 1)
