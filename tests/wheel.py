"""`make wheel-test`: the wheel of this checkout in a clean environment: first it serves, then it trains.

Without extras the command `resnext` lists models and serves the one that it is given; `train` says in a line what is
missing. With the extra `train` it trains, and the service takes the new version over. Installs 2 GB into a temporary
folder.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import httpx

from tests.process import ROOT, answers, free_port, until

SMALL = (
    *("--image-size=32", "--epochs=1", "--batch-size=64", "--architecture.depths=1,1", "--architecture.cardinality=4"),
    *("--architecture.stem-width=16", "--gate.policy=always", "--no-fp16.enabled", "--no-int8.enabled"),
)


def run(*command: object, cwd: Path, status: int = 0) -> str:
    """Runs a command in an environment without the checkout. Returns what it prints."""
    hidden = ("PYTHONPATH", "VIRTUAL_ENV")
    variables = {name: v for name, v in os.environ.items() if name not in hidden and not name.startswith("RESNEXT_")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == status, f"{command}: status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        _say("building the wheel")
        source = _source(work / "source")
        run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", work, source, cwd=work)
        (wheel,) = work.glob("*.whl")
        _say(f"{wheel.name}: without extras")
        resnext = work / "venv" / "bin" / "resnext"
        run(sys.executable, "-m", "venv", work / "venv", cwd=work)
        install = (work / "venv" / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check")
        run(*install, wheel, cwd=work)
        missing = run(resnext, "train", "digits", cwd=work, status=1)
        assert "which the extra `train` brings: pip install 'resnext-service[train]'" in missing, missing
        missing = run(resnext, "weights", "pull", "tv_in1k", cwd=work, status=1)
        assert "which the extra `hub` brings: pip install 'resnext-service[hub]'" in missing, missing
        photos = "import training.weights.known_photos as k; assert all(photo.read() for photo in k.KNOWN_PHOTOS)"
        run(work / "venv" / "bin" / "python", "-c", photos, cwd=work)
        _make_model(work)
        assert "digits" in run(resnext, "models", "list", cwd=work)
        assert "there are no jobs" in run(resnext, "jobs", "list", cwd=work, status=1)
        assert "digits" in run(resnext, "predict", next((work / "digits" / "3").iterdir()), cwd=work)
        _serves(resnext, work, version=1)
        _say("with the extra `train`")
        run(*install, f"{wheel}[train]", cwd=work)
        starter = "import training.jobs.starter as s; assert s.CONFIG.exists(), s.CONFIG"
        run(work / "venv" / "bin" / "python", "-c", starter, cwd=work)
        printed = run(resnext, "train", "digits", *SMALL, cwd=work)
        assert "version 2 of resnext50 is active" in printed, printed
        _serves(resnext, work, version=2)
        _say("passed")


def _source(folder: Path) -> Path:
    """A copy of what goes into the wheel: a build leaves files where it builds, and takes up old ones."""
    for package in ("app", "training"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def _make_model(work: Path) -> None:
    """Trains version 1 with the checkout, into the folder that the wheel serves from."""
    for command in (("dataset", "digits", work / "digits"), ("train", work / "digits", *SMALL)):
        places = [f"--models={work / 'models'}", f"--run={work / 'run'}"] if command[0] == "train" else []
        run(sys.executable, "-m", "training", *command, *places, cwd=ROOT)


def _serves(resnext: Path, work: Path, version: int) -> None:
    port = free_port()
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    service = subprocess.Popen([resnext, "serve", "--port", str(port)], cwd=work, env=variables)
    try:
        until(lambda: answers(f"http://127.0.0.1:{port}/health/ready", 200), seconds=120)
        image = next((work / "digits" / "3").iterdir()).read_bytes()
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", content=image, timeout=60).json()
        assert answer["model"]["version"] == version, answer
    finally:
        service.terminate()
        service.wait()


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
