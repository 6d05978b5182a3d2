"""What goes wrong, in words for people: bad input, and capabilities that are not there.

Everything that a user can get wrong (a path, a flag, a file's content) is raised as an
``InputError`` whose message is one clear sentence: which file or flag, what was found,
what was expected and what to do. The command line prints the message and exits with 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 200  # characters of somebody else's exception, or of a word without end, that people are shown
# what moves a terminal's cursor, changes its colours or the order of what is read; not what joins letters
CONTROLS = "\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
_CONTROL = re.compile(f"[{CONTROLS}]")
_ENDLESS = re.compile(r"\S{600,}")  # no path and no name of anybody's
_NEXT_LINE = re.compile(r"\n(?=  |- )")  # of a list, in an error of several lines


class InputError(Exception):
    """Bad input. ``str(error)`` is the sentence for the user; control characters of what it names are escaped."""

    def __str__(self) -> str:
        whole = _ENDLESS.sub(lambda found: f"{found[0][:LONGEST]}...", super().__str__())
        return "\n".join(printable(line) for line in _NEXT_LINE.split(whole))


def printable(text: str, keep: str = "") -> str:
    r"""A text out of a file as it may be shown: control characters are escaped, ESC as \x1b.

    Args:
        keep: control characters that stay.
    """
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else ascii(found[0])[1:-1], text)


@dataclass(frozen=True)
class Unavailable:
    """What a probe returns in place of a capability that is not there.

    Attributes:
        reason: why, for people: a clause without a full stop, such as "the Python package triton is not installed".
    """

    reason: str

    def __str__(self) -> str:
        return self.reason


def in_short(error: BaseException) -> str:
    """What an exception says, for people: its first line, not too long and without the full stop."""
    return (str(error).strip().splitlines() or [repr(error)])[0][:LONGEST].rstrip(".")
