"""`python -m app keys`: makes API keys."""

import argparse
import secrets
import sys
from pathlib import Path

from app.api.access.keys import Key, content_of, is_name, keys_in
from app.api.access.scopes import SCOPES
from app.settings import SettingsError
from training.errors import words_of

PREFIX = "resnext_"  # so that people, and programs that look for secrets in code, know it for what it is
RANDOM_BYTES = 32


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's own commands and their flags."""
    help_line = "make a key, print it once, and print or write the line that a file of keys holds of it"
    new = parser.add_subparsers(dest="action", required=True, metavar="ACTION").add_parser(
        "new", prog="resnext keys new", help=help_line, description=help_line
    )
    new.add_argument("name", type=_name, help="name of whoever will use it, for logs and metrics")
    new.add_argument("--scope", choices=SCOPES, default="predict", help="what it may do (default: predict)")
    new.add_argument("--file", type=Path, help="file of keys to add the line to; it is made if there is none")


def run(options: argparse.Namespace) -> None:
    """Runs the command. Raises SettingsError when the file cannot be used, or has a key of this name."""
    secret = f"{PREFIX}{secrets.token_urlsafe(RANDOM_BYTES)}"
    key = Key.of(options.name, options.scope, secret)
    if options.file:
        add(key, options.file)
        _say(secret)
        _explain(
            f"The key is shown this once. Its line is in {options.file}, which a running service reads every second"
        )
        return
    _say(secret)
    _say(key.line)
    _explain("The first line is the key; it is shown this once. The second belongs into RESNEXT_API_KEYS_FILE")


def add(key: Key, file: Path) -> None:
    """Adds a key's line to the end of a file of keys, whose mode and place stay. Raises SettingsError."""
    before = content_of(file) if file.exists() else b""
    if any(key.name == other.name for other in keys_in(before, file)):
        raise SettingsError(f"{file} has a key named {key.name}; give the new one another name, or remove that line")
    end = "" if before.endswith(b"\n") or not before else "\n"
    try:
        with file.open("a") as opened:
            opened.write(f"{end}{key.line}\n")
    except OSError as error:
        raise SettingsError(f"{file} cannot be written: {words_of(error)}") from None


def _name(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError("should have 1 to 32 of the characters A-Z a-z 0-9 . _ -")
    return text


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _explain(line: str) -> None:
    sys.stderr.write(f"{line}\n")
