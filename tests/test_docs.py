"""The documentation names what exists: make targets, commands, flags, files."""

import re
import subprocess
from pathlib import Path

import pytest
from pydantic import BaseModel

from training.cli.command import CommandLine, main
from training.cli.datasets import DatasetCommand
from training.cli.jobs import JobsCommand
from training.cli.models import ModelsCommand
from training.cli.runs import RunsCommand

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "models" / "README.md"]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", TEXT)
def test_every_make_target_named_exists(page: str) -> None:
    named = re.findall(r"(?:^|`)make ([a-z][a-z-]*)", TEXT[page], re.MULTILINE)
    assert set(named) <= TARGETS


def test_help_lists_every_target_with_one_line() -> None:
    help_page = ["make", "--no-print-directory", "help"]  # make says so under another make, as `make test` is
    done = subprocess.run(help_page, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {line[1] for line in lines} == TARGETS
    assert all(len(line) > 3 for line in lines)


@pytest.mark.parametrize("page", TEXT)
def test_every_link_leads_to_a_file(page: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT[page]):
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link


def commands(text: str) -> list[list[str]]:
    """What follows `resnext`, or `python -m training`, anywhere in a page, to the end of the command."""
    found = re.findall(r"(?:python -m training|\bresnext) +([a-z][^`#\n]*)", text)
    return [command.split() for command in found]


@pytest.mark.parametrize("page", TEXT)
def test_every_command_and_flag_named_exists(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(TEXT[page]):
        if words[0] == "tune":
            continue  # it becomes the service's own command, and this process with it
        path = [word for word in words if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
        known = help_of(path, capsys)
        for flag in (word for word in words if word.startswith("--")):
            assert re.search(rf"{re.escape(flag)}\b", known), (words, flag)


def test_every_command_is_documented() -> None:
    everything = "\n".join(TEXT.values())
    inner: dict[str, type[BaseModel]] = {
        "dataset": DatasetCommand,
        "models": ModelsCommand,
        "runs": RunsCommand,
        "jobs": JobsCommand,
    }
    for name in CommandLine.model_fields:
        paths = [f"{name} {nested}" for nested in inner[name].model_fields] if name in inner else [name]
        for path in paths:
            assert re.search(rf"(python -m training|\bresnext) {path.replace('_', '-')}\b", everything), path


def help_of(path: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The help of the longest prefix of `path` that is a command."""
    while True:
        try:
            with pytest.raises(SystemExit) as ended:
                main([*path, "--help"])
            assert ended.value.code == 0
        except AssertionError:
            assert len(path) > 1, f"there is no command {path}"
            path = path[:-1]  # the last word was an argument
            continue
        return capsys.readouterr().out
