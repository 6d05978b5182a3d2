"""Giving a file its name, and opening one that has it, so that no file of others is replaced or written to.

By calls that exist on Windows too: a hard link never replaces; where the file system has none, renaming on
Windows never does, and elsewhere the name is first taken by an empty file of ours. Knows nothing about content.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

from ..errors import InputError
from .file_lock import try_lock

_TIMES = 5  # that a file may be replaced while it is opened, before it is given up


def publish(made: Path, name: Path, replace: bool) -> bool:
    """Rename a file to its final name.

    Args:
        made: on the same file system; whole, and on the disk.
        replace: whether a file that is there may be replaced. A link is replaced itself, never what it leads to.

    Returns:
        Whether it was done; if not, there is a file of that name, and ``made`` stays.

    Raises:
        OSError: the disk fails.
    """
    if replace:
        made.replace(name)
        return True
    try:
        name.hardlink_to(made)
    except FileExistsError:
        return False
    except OSError:  # FAT, and some network file systems
        return _rename(made, name)
    made.unlink()
    return True


def _rename(made: Path, name: Path) -> bool:
    try:
        if sys.platform == "win32":
            made.rename(name)
            return True
        with name.open("xb"):
            pass
    except FileExistsError:
        return False
    made.replace(name)
    return True


def check_not_written(partial: Path, path: Path) -> None:
    """See that no other process is making the video ``path``, whose unfinished file is ``partial``.

    Raises:
        InputError: one is.
    """
    try:
        with partial.open("rb") as file:
            free = try_lock(file)
    except OSError:  # none, or one that cannot be opened, which is said elsewhere
        return
    if not free:
        raise InputError(f"another process is writing {path}: wait for it, or give another --save_file.")


def open_locked(path: Path, new: bool) -> BinaryIO | None:
    """Open a file to read and write, unbuffered, and lock it for this process.

    Args:
        new: make it; one that is there is an error. Else it has to be there.

    Returns:
        The file, which is the one of that name even if another had it meanwhile; None if another process has it locked.

    Raises:
        OSError: it cannot be made or opened, is a link, or is replaced again and again.
    """
    for _ in range(_TIMES):
        file = path.open("x+b" if new else "r+b", buffering=0)
        if not try_lock(file):
            file.close()
            return None
        try:
            if os.path.samestat(os.fstat(file.fileno()), path.lstat()):
                return file
        except FileNotFoundError:
            pass
        file.close()
    raise OSError(0, f"{path.name} is a link, or other programs replace it")
