"""The entry of the command line, `resnext` and `python -m training`.

Imports take a second, and Ctrl-C may come then: it is watched before them.
"""

from typing import NoReturn

from training.system.interrupt import INTERRUPT


def run() -> NoReturn:
    """Runs the command that was typed, and ends the process with its status."""
    INTERRUPT.watch()
    INTERRUPT.run(_main)


def _main(arguments: list[str]) -> int:
    from training.cli.command import main

    return main(arguments)


if __name__ == "__main__":
    run()
