"""Hidden folders in which something is made, or removed, out of sight: it comes and goes in one rename."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

STAGING_PREFIX = ".staging-"
STALE_STAGING_S = 24 * 3600


def new_staging(folder: Path) -> Path:
    """A hidden folder within `folder`, to fill and to rename."""
    return Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=folder))


def bury(path: Path, folder: Path) -> Path:
    """Takes a folder out of sight in one rename; returns the staging folder to remove at leisure."""
    grave = new_staging(folder)
    path.rename(grave / "deleted")
    return grave


def remove_stale_staging(folder: Path) -> None:
    """Removes staging folders that a crash left more than a day ago."""
    for stale in folder.glob(f"{STAGING_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):  # its owner ends now
            if time.time() - stale.stat().st_mtime > STALE_STAGING_S:
                shutil.rmtree(stale)
