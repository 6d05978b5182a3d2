"""Where the links of a chained Ogg file begin, whose rate or channels FFmpeg does not let change.

Such a file is several whole ones, one after the other (RFC 3533, section 4). Knows pages and nothing of what they hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

_MAGIC = b"OggS"
_HEADER = 27  # bytes of a page before its table of segments
_FIRST_OF_STREAM = 0x02
_BLOCK = 1 << 16


def links(path: Path) -> list[range]:
    """The bytes of each link, where links are of different kinds; else all bytes, as one."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if file.read(len(_MAGIC)) != _MAGIC:
            return [range(size)]
        starts: list[int] = []
        kinds: list[list[bytes]] = []  # the first packets of each link's streams, which name rates and channels
        position, begins = 0, True
        while position + _HEADER <= size:
            file.seek(position)
            header = file.read(_HEADER)
            if header[:4] != _MAGIC:
                position = _next_page(file, position + 1, size)
                continue
            table = file.read(header[26])
            length = sum(table)
            if header[5] & _FIRST_OF_STREAM:
                if not begins or not starts:
                    starts.append(position)
                    kinds.append([])
                kinds[-1].append(file.read(length))
            begins = bool(header[5] & _FIRST_OF_STREAM)
            position += _HEADER + len(table) + length
    if len(starts) < 2 or all(kind == kinds[0] for kind in kinds):
        return [range(size)]
    return [range(start, stop) for start, stop in zip(starts, [*starts[1:], size], strict=True)]


def _next_page(file: BinaryIO, position: int, size: int) -> int:
    """Where the next page begins, at ``position`` or after it; the file's end if there is none."""
    while position < size:
        file.seek(position)
        block = file.read(_BLOCK)
        if (found := block.find(_MAGIC)) >= 0:
            return position + found
        position += max(1, len(block) - len(_MAGIC) + 1)
    return size
