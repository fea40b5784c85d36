"""The documentation names what exists: make targets, commands, flags, files."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from training.cli.command import CommandLine, main
from training.cli.datasets import DatasetCommand
from training.cli.jobs import JobsCommand
from training.cli.models import ModelsCommand
from training.cli.runs import RunsCommand
from training.cli.serve import OF_APP
from training.cli.weights import WeightsCommand

ROOT = Path(__file__).parents[1]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "models" / "README.md"]
TEXT = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
FOLDERS = ("app", "benchmarks", "monitoring", "requirements", "supply", "tests", "training")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("page", TEXT)
def test_every_make_target_named_exists(page: str) -> None:
    named = re.findall(r"(?:^|`)make ([a-z][a-z-]*)", TEXT[page], re.MULTILINE)
    assert set(named) <= TARGETS


def blocks(page: str) -> list[tuple[str, str]]:
    """Returns the code blocks of a page, each as its language and its text without comments."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT[page], re.MULTILINE | re.DOTALL)
    return [(language, re.sub(r"[ \t]*(?:^|(?<=\s))#.*$", "", text, flags=re.MULTILINE)) for language, text in found]


def test_the_chinese_readme_has_the_same_blocks_in_the_same_order() -> None:
    english = blocks("README.md")
    assert len(english) >= 10
    assert blocks("README.zh-CN.md") == english
    for page, other in (("README.md", "README.zh-CN.md"), ("README.zh-CN.md", "README.md")):
        assert f"]({other})" in TEXT[page].split("\n## ")[0], page


def test_the_readmes_link_to_the_same_pages() -> None:
    """Only the links to each other differ."""
    links = {page: set(re.findall(r"\]\((.*?)\)", TEXT[page])) for page in ("README.md", "README.zh-CN.md")}
    assert links["README.md"] ^ links["README.zh-CN.md"] == set(links)


def test_help_lists_every_target_with_one_line() -> None:
    help_page = [
        "make",
        "--no-print-directory",
        "help",
    ]  # under `make test` it would print the folder
    done = subprocess.run(help_page, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert {line[1] for line in lines} == TARGETS
    assert all(len(line) > 3 for line in lines)


@pytest.mark.parametrize("page", TEXT)
def test_every_link_leads_to_a_file(page: str) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", TEXT[page]):
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("page", TEXT)
def test_every_file_named_exists(page: str) -> None:
    for name in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*)`", TEXT[page]):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("package", ["app", "training"])
def test_the_map_has_a_row_for_each_folder_and_the_layers_that_the_linter_holds(package: str) -> None:
    page = TEXT["docs/architecture.md"]
    table = page.split(f"| Folder of `{package}/` |")[1].split("\n\n")[0]
    rows = set(re.findall(r"^\| `([\w/]+)/` \|", table, re.MULTILINE))
    packages = {path.parent.relative_to(ROOT / package).as_posix() for path in (ROOT / package).rglob("__init__.py")}
    assert rows == packages - {"."}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == [package]]
    named = "; ".join(", ".join(f"`{module}`" for module in layer.split(" | ")) for layer in layers)
    assert f"- {package}: {named}." in re.sub(r"\s+", " ", page)


def anchors(text: str) -> set[str]:
    """Returns the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXT)
def test_every_link_to_a_heading_leads_to_one(page: str) -> None:
    for file, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", TEXT[page]):
        target = (ROOT / page).parent / file if file else ROOT / page
        assert anchor in anchors(target.read_text()), (file, anchor)


def commands(text: str) -> list[list[str]]:
    """Returns the words after `resnext` or `python -m training` of each command in a page."""
    found = re.findall(r"(?:python -m training|\bresnext) +([a-z][^`#\n]*)", text)
    return [command.split() for command in found]


@pytest.mark.parametrize("page", TEXT)
def test_every_command_and_flag_named_exists(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(TEXT[page]):
        if words[0] in OF_APP:
            continue  # this process would become the service's own command
        path = [word for word in words if re.fullmatch(r"[a-z-]+", word) and not word.startswith("-")]
        known = help_of(path, capsys)
        for flag in (word for word in words if word.startswith("--")):
            assert re.search(rf"{re.escape(flag)}\b", known), (words, flag)


def test_every_command_is_documented() -> None:
    everything = "\n".join(TEXT.values())
    inner: dict[str, type[BaseModel]] = {
        "dataset": DatasetCommand,
        "models": ModelsCommand,
        "weights": WeightsCommand,
        "runs": RunsCommand,
        "jobs": JobsCommand,
    }
    for name in CommandLine.model_fields:
        commands = inner[name].model_fields if name in inner else {}
        paths = [f"{name} {field.alias or nested}" for nested, field in commands.items()] or [name]
        for path in paths:
            assert re.search(rf"(python -m training|\bresnext) {path.replace('_', '-')}\b", everything), path


def help_of(path: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the help of the longest prefix of `path` that is a command."""
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
