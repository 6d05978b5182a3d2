"""Which paths are on another computer. Knows no file."""

from __future__ import annotations

import re
from pathlib import Path

_SHARE = re.compile(r"[\\/]{2}")


def is_share(path: Path | str) -> bool:
    r"""Whether Windows would ask another computer for this path, as \\computer\share\file.

    One that a file names is not looked at, on any system: asking tells that computer who asks.
    """
    return _SHARE.match(str(path)) is not None
