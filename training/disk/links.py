"""Files that exist once, in two folders."""

import os
import shutil


def link_or_copy(source: str, target: str) -> str:
    """Makes `target` another name of the file `source`, or a copy where it lies on another file system."""
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target
