"""What a person who watches a run reads, beside what is written to its `progress.jsonl`."""

from pathlib import Path

from rich.console import Console

from training.runs.progress import Phase, ProgressWriter


class ProgressLog(ProgressWriter):
    """Writes a run's progress to its file and announces it on a console."""

    def __init__(self, path: Path, console: Console) -> None:
        super().__init__(path)
        self.console = console

    def announce(self, phase: Phase, message: str) -> None:
        """Begins a phase, in the file and on the console."""
        self.begin(phase)
        self.console.print(f"[bold]{phase}[/bold] {message}", highlight=False)

    def tell(self, message: str) -> None:
        """Prints a line."""
        self.console.print(message, markup=False, highlight=False)


def duration(seconds: float) -> str:
    """`75` as `1:15`, `4000` as `1:06:40`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
