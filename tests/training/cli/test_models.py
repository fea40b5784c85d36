"""`resnext models` on a repository in which one thing is damaged: a line for it, and all the rest."""

from pathlib import Path

import pytest

from tests.damage import damage
from tests.training.contract.flowers import manifest
from training.cli.command import main
from training.contract.manifest import MANIFEST_FILE, MODEL_FILE
from training.contract.repository import ModelRepository

ACTIVE, HISTORY, FAILURES, MANIFEST = "ACTIVE", "HISTORY", "FAILURES", f"2/{MANIFEST_FILE}"


@pytest.mark.parametrize("file", [ACTIVE, HISTORY, FAILURES, MANIFEST])
def test_one_damaged_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    repository = ModelRepository(tmp_path, "flowers")
    for version in (1, 2):
        with repository.staging() as folder:
            (folder / MODEL_FILE).write_bytes(b"weights")
            repository.publish(folder, manifest())
        repository.activate(version)
    where = ["--models", str(tmp_path), "--name", "flowers"]
    for kind in ("garbage", "a pipe"):
        damage(repository.folder / file, kind)
        assert main(["models", "list", *where]) == 0
        printed = capsys.readouterr()
        rows = [line.split()[0] for line in printed.out.splitlines() if line[:7].strip().isdigit()]
        assert rows == ["1", "2"]
        assert printed.err.startswith(f"error: flowers/{file} ")
        assert printed.err.count("\n") == 1
    for command in (["rollback"], ["show", "2"], ["prune"]):
        status = main(["models", *command, *where])
        assert status == 0 or capsys.readouterr().err.count("\n") == 1
    if file != MANIFEST:
        assert main(["models", "activate", "1", *where]) == 0
        assert repository.active() == 1
