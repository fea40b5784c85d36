"""The command line's help, and its answer to a command that was typed wrongly."""

import argparse
import difflib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Sequence

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings.exceptions import SettingsError

from training.config import TrainConfig, flag

NO_DEFAULT = re.compile(r" ?\(default: (?:null|None|\{\}|\[\]|\(\))\)")
SEVERAL = re.compile(r"(?:tuple|list)\[(.+?)(?:,\.\.\.)?\]")
FIELD = re.compile(r"\b[a-z]+(?:_[a-z]+)+\b")

PLAINLY = {"model_type": "should be a table of settings", "path_type": "should be the path of a file or folder"}


class HelpFormatter(argparse.HelpFormatter):
    """Help without Python's words for nothing, with types in words of the command line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = inspect.cleandoc(text).split("\n\n")
        return "\n\n".join(super(HelpFormatter, self)._fill_text(part, width, indent) for part in paragraphs)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return NO_DEFAULT.sub("", action.help) if action.help else action.help

    def _metavar_formatter(self, action: argparse.Action, default_metavar: str) -> Callable[[int], tuple[str, ...]]:
        if isinstance(action, argparse._SubParsersAction):
            action.metavar = "COMMAND"  # argparse breaks the list of all of them within words
        elif isinstance(action.metavar, str):
            action.metavar = _several(action.metavar).replace("SecretStr", "str")
        return super()._metavar_formatter(action, default_metavar)


def mistakes(error: Exception, parser: argparse.ArgumentParser, arguments: Sequence[str]) -> Iterator[str]:
    """Yields a line for each thing that is wrong with a command as it was typed."""
    if isinstance(error, ValidationError):
        yield from _complaints(error, arguments)
    else:
        yield _unparsed(error, parser, arguments) if isinstance(error, SettingsError) else str(error)


def _complaints(error: ValidationError, arguments: Sequence[str]) -> Iterator[str]:
    """Yields a line for each value that is not accepted, with the flag as it was typed."""
    problems = error.errors()
    for problem in problems:
        if problem["type"] == "too_short" and any(other["loc"][:-1] == problem["loc"] for other in problems):
            continue  # it is short only because its bad items were removed
        path = [str(part).replace("_", "-") for part in problem["loc"] if isinstance(part, str)]
        for command in arguments[:2]:
            path = path[1:] if path[:1] == [command] else path
        place = _as_typed(".".join(path), arguments)
        yield f"{place}: {_reason(problem)}" if place else _reason(problem)


def _unparsed(error: SettingsError, parser: argparse.ArgumentParser, arguments: Sequence[str]) -> str:
    """Returns a line for a command with words or flags that it does not have."""
    message = str(error).removeprefix("error parsing CLI: ").splitlines()[0]
    parser = _parser_of(arguments, parser)
    lists = f"{parser.prog} --help lists them"
    if found := re.match("unrecognized arguments: (.*)", message):
        words = found[1].split(" ")
        word = next((word for word in words if word.startswith("-")), words[0]).split("=")[0]
        if not word.startswith("-"):
            return f"{parser.prog} has one word too many: {word}"
        return f"{parser.prog} has no flag {word}; {_meant(word, parser._option_string_actions, lists)}"
    if "subcommand is required" in message:
        return f"{parser.prog} needs a command: {', '.join(_commands(parser))}"
    if found := re.search("invalid choice: '(.*?)' ", message):
        return f"{parser.prog} has no command {found[1]}; {_meant(found[1], _commands(parser), lists)}"
    if found := re.match("the following arguments are required: (.*)", message):
        return f"{parser.prog} needs {found[1]}"
    return message.removeprefix("argument ")


def _parser_of(arguments: Sequence[str], parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Returns the parser of the command that was typed, as far as there is one."""
    for argument in arguments:
        if argument not in (commands := _commands(parser)):
            break
        parser = commands[argument]
    return parser


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Returns the commands below a parser; argparse has no public way to ask for them."""
    found = [action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0]) if found else {}


def _meant(word: str, words: Iterable[str], otherwise: str) -> str:
    """Returns a question with the word that was probably meant, or `otherwise`."""
    near = difflib.get_close_matches(word, list(words), 1, cutoff=0.7)
    return f"did you mean {near[0]}?" if near else otherwise


def _settings(model: type[BaseModel] = TrainConfig) -> Iterator[str]:
    """Yields the names of all settings, also of those in tables."""
    for name, field in model.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _settings(field.annotation)


def _several(metavar: str) -> str:
    """Returns `int,...` for `tuple[int,...]`."""
    return SEVERAL.sub(r"\1,...", metavar)


def _as_typed(name: str, arguments: Sequence[str]) -> str:
    if any(argument.split("=")[0] in (f"--{name}", f"--no-{name}") for argument in arguments):
        return f"--{name}"
    if any(argument.split("=")[0] == "--config" for argument in arguments):
        return name.replace("-", "_")  # it is in that file
    return name.upper()


def _reason(problem: ErrorDetails) -> str:
    if problem["type"] == "extra_forbidden":
        meant = _meant(str(problem["loc"][-1]), _settings(), "resnext train --help lists them")
        return f"there is no such setting; {meant}"
    message = problem["msg"].removeprefix("Value error, ")
    message = FIELD.sub(lambda match: flag(match[0]) if match[0] in TrainConfig.model_fields else match[0], message)
    if problem["type"] in ("missing", "value_error"):  # their message says what came
        return message
    return f"{PLAINLY.get(problem['type'], message)}, it is {problem['input']!r}"
