"""Ctrl-C, as a person presses it: in a terminal, in any phase, and what the line says to go on with."""

import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.process import ROOT, environment
from tests.terminal import END_OF_TEXT, Terminal
from tests.training.datasets.folders import few
from training.contract.repository import ModelRepository

SMALL = (
    *("--image-size=32", "--batch-size=64", "--augment=none", "--architecture.depths=1,1", "--no-int8.enabled"),
    *("--architecture.cardinality=4", "--architecture.stem-width=16", "--no-fp16.enabled", "--no-tensorboard"),
)
SHOWN, HIDDEN = b"\x1b[?25h", b"\x1b[?25l"


def resnext(cwd: Path, *arguments: object) -> Terminal:
    variables = environment() | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return Terminal(sys.executable, "-m", "training", *arguments, environment=variables, columns=200, cwd=cwd)


def interrupted(terminal: Terminal, when: Callable[[Terminal], bool], presses: int = 1) -> str:
    """Presses Ctrl-C once the condition holds. Returns the last line."""
    with terminal:
        terminal.until(when)
        for _ in range(presses):
            terminal.press(END_OF_TEXT)
        assert terminal.to_end() == 130, terminal.text
    assert "Traceback" not in terminal.text
    assert terminal.transcript.rfind(SHOWN) >= terminal.transcript.rfind(HIDDEN)
    return [line for line in terminal.lines if line.strip("^C")][-1]


def has_gone_on(terminal: Terminal) -> bool:
    """Whether a run that was resumed has ended one more epoch."""
    last = re.search(r"going on after epoch (\d+)", terminal.text)
    return last is not None and f"epoch {int(last[1]) + 2}/400" in terminal.frames[-1]


def test_ctrl_c_says_how_to_go_on_and_that_goes_on(digits: Path, tmp_path: Path) -> None:
    images = few(digits, tmp_path / "images")
    training = resnext(tmp_path, "train", images, *SMALL, "--epochs=400", "--models=m")
    line = interrupted(training, lambda terminal: any("epoch 3/400" in frame for frame in terminal.frames), presses=2)
    (folder,) = (tmp_path / "runs").iterdir()
    assert f"run runs/{folder.name}" in training.lines
    assert re.fullmatch(rf"stopped in epoch \d+; go on with: resnext train --run runs/{folder.name} --resume", line)

    (tmp_path / "elsewhere").mkdir()
    again = resnext(tmp_path / "elsewhere", "train", "--run", folder, "--resume")
    line = interrupted(again, has_gone_on)
    assert line.endswith(f"resnext train --run {folder} --resume")

    exporting = resnext(tmp_path, "export", folder)
    line = interrupted(exporting, lambda terminal: "exporting" in terminal.text)
    assert line == f"stopped in exporting; go on with: resnext export {folder}"
    with resnext(tmp_path / "elsewhere", "export", folder) as done:
        done.to_end()
    assert ModelRepository(tmp_path / "m", "resnext50").versions() == [1]  # where the run was begun for


def test_a_run_that_is_stopped_before_its_images_are_checked_leaves_nothing(digits: Path, tmp_path: Path) -> None:
    training = resnext(tmp_path, "train", digits, *SMALL)
    line = interrupted(training, lambda terminal: "checking" in terminal.text)
    if not line.startswith("stopped in epoch 1"):  # the images were read before the key came
        assert line == "stopped in checking; nothing is kept"
        assert list((tmp_path / "runs").iterdir()) == []


@pytest.mark.parametrize("body", ["hashlib.pbkdf2_hmac('sha512', b'x', b'y', 2 * 10**9)", "raise_and_swallow()"])
def test_the_end_waits_for_no_step(tmp_path: Path, body: str) -> None:
    """Two endless steps: one in C, which no signal stops, and one that swallows what is raised."""
    program = tmp_path / "program.py"
    program.write_text(
        "import hashlib, time\n"
        "from training.system.interrupt import INTERRUPT\n"
        "def raise_and_swallow():\n"
        "    end = time.monotonic() + 60\n"
        "    while time.monotonic() < end:\n"
        "        try:\n"
        "            time.sleep(60)\n"
        "        except BaseException:\n"
        "            pass\n"
        "def step(_):\n"
        "    print('begun', flush=True)\n"
        "    while True:\n"
        f"        {body}\n"
        "INTERRUPT.watch()\n"
        "INTERRUPT.says(lambda: 'stopped here')\n"
        "INTERRUPT.run(step)\n"
    )
    terminal = Terminal(sys.executable, program, environment=environment() | {"PYTHONPATH": str(ROOT)}, seconds=60)
    assert interrupted(terminal, lambda terminal: "begun" in terminal.text) == "stopped here"


@pytest.mark.parametrize(("module", "imported"), [("training", "pydantic_settings"), ("app", "uvicorn")])
def test_a_program_that_is_still_being_imported_ends_with_a_line(tmp_path: Path, module: str, imported: str) -> None:
    command = (sys.executable, "-X", "importtime", "-m", module)  # each import writes a line
    terminal = Terminal(*command, environment=environment() | {"PYTHONPATH": str(ROOT)}, columns=200, cwd=tmp_path)
    interrupted(terminal, lambda terminal: imported.encode() in terminal.transcript)
    assert terminal.transcript.endswith(b"\rstopped\r\n")  # the start of its line may have one of the imports


def test_a_command_in_the_background_of_a_shell_goes_on_ignoring_it() -> None:
    program = (
        "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "from training.system.interrupt import INTERRUPT\n"
        "INTERRUPT.watch(); os.kill(os.getpid(), signal.SIGINT); print('goes on')\n"
    )
    with Terminal(sys.executable, "-c", program, environment=environment() | {"PYTHONPATH": str(ROOT)}) as terminal:
        assert terminal.to_end() == 0
    assert terminal.text == "goes on"


def test_a_line_that_cannot_be_made_says_so() -> None:
    program = (
        "import os, signal\n"
        "from training.system.interrupt import INTERRUPT\n"
        "INTERRUPT.watch(); INTERRUPT.says(lambda: [].pop())\n"
        "INTERRUPT.run(lambda _: os.kill(os.getpid(), signal.SIGINT))\n"
    )
    with Terminal(sys.executable, "-c", program, environment=environment() | {"PYTHONPATH": str(ROOT)}) as terminal:
        assert terminal.to_end() == 128 + signal.SIGINT
    assert terminal.text == "stopped; how to go on is not known: IndexError('pop from empty list')"
