"""Units and numbers that several rooms count with."""

from __future__ import annotations

GIB = 2**30
SLOTS = 2  # on the device, for blocks that are copied in


def size_text(size: int) -> str:
    """A file's size in bytes as people read it, in decimal units: 512 bytes, 3.4 KB, 71.2 MB, 16.40 GB."""
    for unit, name, digits in ((10**9, "GB", 2), (10**6, "MB", 1), (10**3, "KB", 1)):
        if round(size / unit, 3) >= 1:
            return f"{size / unit:.{digits}f} {name}"
    return f"{size} byte{'s' * (size != 1)}"
