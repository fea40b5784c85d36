"""`resnext`, the command that is installed. Its imports take a second, in which Ctrl-C may come."""

from typing import NoReturn

from training.system.interrupt import INTERRUPT


def run() -> NoReturn:
    """Runs the command that was typed, and ends the process with its status."""
    INTERRUPT.watch()
    INTERRUPT.run(_main)


def _main(arguments: list[str]) -> int:
    from training.__main__ import main

    return main(arguments)
