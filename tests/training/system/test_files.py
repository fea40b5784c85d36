import hashlib
import os
from pathlib import Path

import pytest

from training.system.files import open_file, read_at_most, sha256


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    content = os.urandom(3_000_000)
    (tmp_path / "a").write_bytes(content)
    assert read_at_most(tmp_path / "a", len(content)) == content
    with pytest.raises(OSError, match="more than 2999999 bytes"):
        read_at_most(tmp_path / "a", len(content) - 1)
    assert sha256(tmp_path / "a") == hashlib.sha256(content).hexdigest()


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("pipe", "link"):
        for read in (open_file, sha256):
            with pytest.raises(OSError, match="it should be a file, it is a named pipe"):
                read(tmp_path / name)
