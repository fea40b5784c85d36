"""The files and folders that operating systems leave among a user's own."""

import re

# in lower case; names that begin with a dot count as well
CLUTTER = frozenset(
    {
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r"),
        *("$recycle.bin", "system volume information"),  # Windows
        *("__macosx", "network trash folder", "temporary items"),  # macOS
        *("lost+found", "lost.dir"),  # Linux, Android
        *("@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@sharebin", "~snapshot"),  # NAS
        "__pycache__",
    }
)
_CHECKED_DISK = re.compile(r"found\.\d{3}")  # left by Windows' chkdsk


def is_clutter(name: str) -> bool:
    """Whether a file or folder of this name is hidden or belongs to the system."""
    lower = name.lower()
    return name.startswith(".") or lower in CLUTTER or _CHECKED_DISK.fullmatch(lower) is not None
