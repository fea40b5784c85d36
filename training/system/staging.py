"""Hidden folders for what is being made or removed: it appears and disappears in one rename."""

import contextlib
import shutil
import tempfile
import time
from pathlib import Path

STAGING_PREFIX = ".staging-"
STALE_STAGING_S = 24 * 3600


def new_staging(folder: Path) -> Path:
    """Makes a hidden folder within `folder`, to fill and to rename."""
    return Path(tempfile.mkdtemp(prefix=STAGING_PREFIX, dir=folder))


def bury(path: Path, folder: Path) -> Path:
    """Takes a folder out of sight in one rename. Returns the staging folder that holds it, for the caller to remove."""
    grave = new_staging(folder)
    path.rename(grave / "deleted")
    return grave


def remove_stale_staging(folder: Path) -> None:
    """Removes staging folders that a crash left more than a day ago."""
    for stale in folder.glob(f"{STAGING_PREFIX}*"):
        with contextlib.suppress(OSError):  # its owner is removing it now, or it holds what nobody may remove
            if time.time() - stale.stat().st_mtime > STALE_STAGING_S:
                shutil.rmtree(stale)
