"""The lines that a person reads while a run goes on, beside its `progress.jsonl`."""

from pathlib import Path

from rich.console import Console

from training.runs.progress import Phase, ProgressWriter


class ProgressLog(ProgressWriter):
    """A writer of a run's progress that also announces it on a console."""

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
    """Returns `1:15` for 75 seconds, `1:06:40` for 4000."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
