"""The command line: all commands, and how errors are printed. Flags, help and defaults come from pydantic models."""

import argparse
import os
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    CliSettingsSource,
    CliSubCommand,
    SettingsConfigDict,
    SettingsError,
)

from training.cli import terminal
from training.cli.datasets import DatasetCommand
from training.cli.evaluate import Evaluate
from training.cli.extra import PACKAGES, missing_extra
from training.cli.jobs import JobsCommand, RunWorker
from training.cli.models import ModelsCommand
from training.cli.predict import Predict
from training.cli.runs import RunsCommand
from training.cli.serve import OF_APP, MakeKeys, Serve, Tune, become_app
from training.cli.starter import TrainStarter
from training.cli.summary import Summarize
from training.cli.train import ExportRun, Train
from training.cli.usage import HelpFormatter, mistakes
from training.cli.weights import WeightsCommand
from training.errors import TrainingError, UsageError, words_of

# TensorFlow takes seconds to import, so each command imports what it needs

PIPE_CLOSED = 128 + signal.SIGPIPE  # as a shell has it


class CommandLine(BaseSettings):
    """Trains, verifies, publishes and serves ResNeXt classifiers of your own images."""

    model_config = SettingsConfigDict(
        cli_prog_name="resnext",
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_hide_none_type=True,
        cli_enforce_required=True,
        cli_exit_on_error=False,
        cli_use_class_docs_for_groups=True,
    )

    train: CliSubCommand[Train]
    evaluate: CliSubCommand[Evaluate]
    export: CliSubCommand[ExportRun]
    predict: CliSubCommand[Predict]
    summary: CliSubCommand[Summarize]
    dataset: CliSubCommand[DatasetCommand]
    models: CliSubCommand[ModelsCommand]
    weights: CliSubCommand[WeightsCommand]
    runs: CliSubCommand[RunsCommand]
    starter: CliSubCommand[TrainStarter]
    serve: CliSubCommand[Serve]
    tune: CliSubCommand[Tune]
    keys: CliSubCommand[MakeKeys]
    worker: CliSubCommand[RunWorker]
    jobs: CliSubCommand[JobsCommand]

    def cli_cmd(self) -> None:
        CliApp.run_subcommand(self)


def main(arguments: list[str]) -> int:
    """Runs one command. Returns 0 when it worked, 1 when it could not, 2 when it was typed wrongly."""
    if arguments and arguments[0] in OF_APP:
        become_app(arguments)
    source = CliSettingsSource[argparse.ArgumentParser](CommandLine, formatter_class=HelpFormatter)
    try:
        CliApp.run(CommandLine, arguments, source, **_settings_file(arguments))
    except (ValidationError, SettingsError, UsageError) as error:
        for line in mistakes(error, source.root_parser, arguments):
            terminal.error(line)
        return 2
    except BrokenPipeError:  # `resnext predict DIR | head`: the reader has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be written
        return PIPE_CLOSED
    except (TrainingError, OSError) as error:  # OSError: a missing file, a full disk
        terminal.error(terminal.reason(error))
        return 1
    except ModuleNotFoundError as error:
        if not (package := PACKAGES.get((error.name or "").split(".")[0])):
            raise
        terminal.error(missing_extra(" ".join(arguments[:1]), package))
        return 1
    return 0


def _settings_file(arguments: list[str]) -> dict[Literal["train"], Any]:
    """Reads the TOML file that `train --config FILE` names. Flags override its values."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path, nargs="?")  # the command itself complains when no file follows
    file = parser.parse_known_args(arguments)[0].config
    if arguments[:1] != ["train"] or not file:
        return {}
    try:
        return {"train": _underscored(tomllib.loads(file.read_text("utf-8")))}
    except (OSError, ValueError) as error:  # ValueError: no TOML, or no UTF-8
        raise TrainingError(f"--config should name a TOML file, {file} is none: {words_of(error)}") from None


def _underscored(table: dict[str, Any]) -> dict[str, Any]:
    """Returns the table with the names of fields: `image-size`, as the flag is called, becomes image_size."""
    return {
        name.replace("-", "_"): _underscored(value) if isinstance(value, dict) else value
        for name, value in table.items()
    }
