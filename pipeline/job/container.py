"""Opening pictures', sounds' and videos' files with PyAV, the same everywhere.

The list of protocols and the prefix keep FFmpeg off the network, whatever a file is called or says. Tags need not be
UTF-8: PyAV before 19 decodes them while it opens a file, and has to be told to go on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import av

LAZY_TAGS = 19  # PyAV from this version on decodes tags when they are asked for
_TAGS: dict[str, Any] = {} if int(av.__version__.partition(".")[0]) >= LAZY_TAGS else {"metadata_errors": "replace"}


class Readable(Protocol):
    """What FFmpeg reads a file by that PyAV does not open itself."""

    def read(self, count: int, /) -> bytes: ...

    def seek(self, offset: int, whence: int = 0, /) -> int: ...


def open_container(source: Path | Readable) -> av.container.InputContainer:
    """A file, or what has been opened of one, to be read.

    Raises:
        av.FFmpegError, ValueError, OSError: it cannot be read as anything.
    """
    if isinstance(source, Path):
        # Not options=, which also goes to the streams, and crashes PyAV 14 to 16 on MPEG program streams.
        return av.open(f"file:{source}", "r", container_options={"protocol_whitelist": "file"}, **_TAGS)
    return av.open(source, "r", **_TAGS)


def tag(container: av.container.InputContainer, name: str) -> str | None:
    """A text that a file carries about itself, or None."""
    try:
        return container.metadata.get(name)
    except UnicodeDecodeError:  # another one is not UTF-8
        return None
