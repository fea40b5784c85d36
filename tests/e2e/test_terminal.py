"""A training in a terminal of 80 columns."""

import re

from tests.e2e.conftest import Starter, command
from tests.terminal import Terminal
from tests.training.datasets.folders import few

BAR = re.compile(r"epoch (\d+)/\d+ \S* ?\S* +(\d+)/\d+")
EPOCH = re.compile(r"epoch (\d+)/\d+  loss \d\.\d+  accuracy \d\.\d+  val loss \d+\.\d+  val accuracy \d\.\d+")
COLOUR = re.compile(rb"\x1b\[[0-9;]*3[0-9]")
SMALL = ("--architecture.depths=1,1", "--architecture.cardinality=4", "--architecture.stem-width=16")


def bars(terminal: Terminal) -> set[tuple[str, str]]:
    """Returns every (epoch, step) that the bar has shown."""
    return {(match[1], match[2]) for frame in terminal.frames for match in BAR.finditer(frame)}


def test_the_bar_moves_and_leaves_a_line_for_each_epoch(starter_run: Starter) -> None:
    terminal = starter_run.terminal
    shown = bars(terminal)
    assert {epoch for epoch, _ in shown} == {"1", "2", "3"}
    assert any("tracing the graph" in frame for frame in terminal.frames)
    assert len({step for epoch, step in shown if epoch == "2"}) > 1, shown
    assert EPOCH.findall(terminal.text) == ["1", "2", "3"]
    assert not BAR.search(terminal.text), "a bar that stands still was left behind"
    assert "Traceback" not in terminal.text
    assert not COLOUR.search(terminal.transcript)  # it ran with NO_COLOR


def test_a_dumb_terminal_gets_lines_alone(starter_run: Starter) -> None:
    folder = starter_run.folder
    images = few(folder / "digits", folder / "few")
    terminal = command(
        *("train", images, "--config=training/jobs/starter.toml", "--epochs=2", *SMALL),
        *(f"--run={folder / 'dumb'}", f"--models={folder / 'dumb-models'}", "--gate.policy=always"),
        TERM="dumb",
    )
    assert EPOCH.findall(terminal.text) == ["1", "2"]
    assert b"\x1b" not in terminal.transcript
    assert "Traceback" not in terminal.text
