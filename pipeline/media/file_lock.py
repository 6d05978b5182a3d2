"""A lock on an open file that the operating system takes back when the process ends, however it ends."""

from __future__ import annotations

import sys
from typing import BinaryIO

# Windows locks regions and keeps others from reading them: one byte far behind any content.
_FAR = 1 << 40


def try_lock(file: BinaryIO) -> bool:
    """Lock the file for this process; False if another one has it locked. Closing the file unlocks it."""
    if sys.platform == "win32":
        return _try_lock_windows(file)
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a network file system without locks: better no lock than no video
        return True
    return True


def _try_lock_windows(file: BinaryIO) -> bool:
    if sys.platform != "win32":  # for type checkers, which know msvcrt's names only there
        return False
    import msvcrt

    position = file.tell()
    file.seek(_FAR)
    try:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    finally:
        file.seek(position)
    return True
