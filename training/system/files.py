"""Files: the digest of their bytes, and a file in two folders."""

import hashlib
import os
import shutil
from pathlib import Path


def link_or_copy(source: str, target: str) -> str:
    """Makes `target` a second name of the file `source`, or a copy of it on another file system. Returns `target`."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def sha256(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
