"""The command line's help, and what it says of a command that was typed wrongly."""

import argparse
import re
from collections.abc import Callable, Iterator, Sequence

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from training.config import TrainConfig

NO_DEFAULT = re.compile(r" ?\(default: (?:null|None|\{\}|\[\]|\(\))\)")
SEVERAL = re.compile(r"(?:tuple|list)\[(.+?)(?:,\.\.\.)?\]")
FIELD = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help without what Python calls nothing, and with types in words of the command line."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return NO_DEFAULT.sub("", action.help) if action.help else action.help

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Callable[[int], tuple[str, ...]]:
        if isinstance(action.metavar, str):
            action.metavar = _several(action.metavar)
        return super()._metavar_formatter(action, default_metavar)


def complaints(error: ValidationError, arguments: Sequence[str]) -> Iterator[str]:
    """A line for each value that will not do, with the flag as it was typed."""
    for problem in error.errors():
        path = [str(part).replace("_", "-") for part in problem["loc"] if isinstance(part, str)]
        while path and path[0] in arguments[:2]:  # the command's own names
            path = path[1:]
        place = _as_typed(".".join(path), arguments)
        yield f"{place}: {_reason(problem)}" if place else _reason(problem)


def flag(field: str) -> str:
    """`--image-size` of image_size."""
    return f"--{field.replace('_', '-')}"


def _several(metavar: str) -> str:
    """`int,...` of `tuple[int,...]`."""
    return SEVERAL.sub(r"\1,...", metavar)


def _as_typed(name: str, arguments: Sequence[str]) -> str:
    if any(argument.split("=")[0] in (f"--{name}", f"--no-{name}") for argument in arguments):
        return f"--{name}"
    if any(argument.split("=")[0] == "--config" for argument in arguments):
        return name.replace("-", "_")  # it stands in that file
    return name.upper()


def _reason(problem: ErrorDetails) -> str:
    if problem["type"] == "extra_forbidden":
        return "there is no such setting"
    message = problem["msg"].removeprefix("Value error, ")
    message = FIELD.sub(lambda match: flag(match[0]) if match[0] in TrainConfig.model_fields else match[0], message)
    if problem["type"] in ("missing", "value_error"):  # which say themselves what came
        return message
    return f"{message}, it is {problem['input']!r}"
