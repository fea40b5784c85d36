"""Files that exist once, in two folders."""

import os
import shutil


def link_or_copy(source: str, target: str) -> str:
    """Makes `target` a second name of the file `source`, or a copy of it on another file system. Returns `target`."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target
