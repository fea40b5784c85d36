import os
from pathlib import Path

import pytest

from training.system.locks import LockHeld, exclusive


def test_a_lock_that_is_kept_is_refused_after_a_while_and_named(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with exclusive(path), pytest.raises(LockHeld) as caught, exclusive(path, 0.1):
        pass
    assert str(caught.value) == f"{tmp_path.name}/.lock has been held by process {os.getpid()} for more than 0.1 s"
    with exclusive(path, 0.1):
        pass


def test_a_lock_that_is_a_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(OSError, match="No such device"), exclusive(tmp_path / ".lock", 0.1):
        pass
