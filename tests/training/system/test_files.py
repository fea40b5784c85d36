import hashlib
import os
from pathlib import Path

import pytest

from training.errors import ContractError
from training.system.files import read_regular, sha256


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(content)
    assert read_regular(tmp_path / "a") == content
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link"):
        for read in (read_regular, sha256):
            with pytest.raises(ContractError, match=f"{name} should be a file, it is a named pipe, a device"):
                read(tmp_path / name)
