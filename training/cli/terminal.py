"""The terminal: its console, tables, times, sizes and errors."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from training.errors import words_of

WIDEST = 10_000  # of a table in a pipe
TEXT_LEAST = 10
GAP = 2  # between two columns


class Terminal(Console):
    """A console that can remove the bars that it draws."""

    def __init__(self) -> None:
        super().__init__(soft_wrap=True)
        self._bars: list[Live] = []

    @property
    def options(self) -> ConsoleOptions:
        """Rich's own options, two columns narrower: a terminal writes ^C behind a bar, and a wrapped bar is not erased.

        In a pipe every line has room. Rich would take the pipe for a terminal of 80 columns.
        """
        options = super().options
        return options.update(max_width=options.max_width - 2 if self.is_terminal else WIDEST)

    def set_live(self, live: Live) -> bool:
        """Remembers a bar. Rich calls this when one starts."""
        self._bars.append(live)
        return super().set_live(live)

    def end_bars(self) -> None:
        """Removes the bars and shows the cursor again."""
        while self._bars:
            self._bars.pop().stop()


console = Terminal()


@dataclass(frozen=True)
class Heading:
    """A column's heading. `kind` says how cells fold: whole and figures never, words between words, text anywhere."""

    name: str
    kind: Literal["whole", "figures", "words", "text"]

    def least(self, cells: Sequence[str]) -> int:
        """Returns the fewest terminal columns that the cells need."""
        if self.kind in ("whole", "figures"):
            return _longest(cells, str.splitlines)
        longest = _longest(cells, str.split)
        return longest if self.kind == "words" else min(longest, TEXT_LEAST)


def table(headings: Sequence[Heading], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table, at most as wide as the terminal, with nothing cut off."""
    drawn = Table(
        box=None, pad_edge=False, padding=(0, 1), header_style="bold", show_header=any(h.name for h in headings)
    )
    cells = [[heading.name, *(row[i] for row in rows)] for i, heading in enumerate(headings)]
    room = console.options.max_width
    for heading, width in zip(headings, _widths(headings, cells, room - GAP * (len(headings) - 1)), strict=True):
        drawn.add_column(
            heading.name, justify="right" if heading.kind == "figures" else "left", overflow="fold", width=width
        )
    for row in rows:
        drawn.add_row(*map(Text, row))  # Text: to rich, a label such as "[red]" is markup
    console.print(drawn, soft_wrap=False, crop=False, highlight=False)


def _widths(headings: Sequence[Heading], cells: Sequence[Sequence[str]], room: int) -> list[int]:
    """Returns the columns' widths. Text, such as a name, gets its share of the spare room first, then words."""
    widths = [heading.least(column) for heading, column in zip(headings, cells, strict=True)]
    room -= sum(widths)
    for kind in ("text", "words"):
        lacks = {
            i: _longest(cells[i], str.splitlines) - widths[i]
            for i, heading in enumerate(headings)
            if heading.kind == kind
        }
        share = min(1.0, max(0, room) / (sum(lacks.values()) or 1))
        for i, lack in lacks.items():
            widths[i] += (more := int(lack * share))
            room -= more
    return widths


def _longest(cells: Sequence[str], split: Callable[[str], list[str]]) -> int:
    return max((cell_len(part) for cell in cells for part in split(cell)), default=0)


def moment(time: datetime) -> str:
    """Returns a time as all tables show it, in the time zone of this machine."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}"


def size(count: int) -> str:
    """Returns a number of bytes as `685 MB`."""
    return decimal(count, precision=0)


def reason(error: Exception) -> str:
    """Returns what an error says, with the file that the system complains of."""
    file = error.filename if isinstance(error, OSError) else None
    return f"{file}: {words_of(error)}" if file else words_of(error)


def error(message: object) -> None:
    """Prints an error line to stderr."""
    sys.stderr.write(f"error: {message}\n")
