"""What goes wrong, in words for people: bad input, and capabilities that are not there.

Everything that a user can get wrong (a path, a flag, a file's content) is raised as an
``InputError`` whose message is one clear sentence: which file or flag, what was found,
what was expected and what to do. The command line prints the message and exits with 2.
"""

from __future__ import annotations

from dataclasses import dataclass


class InputError(Exception):
    """Bad input. ``str(error)`` is the sentence for the user."""


@dataclass(frozen=True)
class Unavailable:
    """What a probe returns in place of a capability that is not there.

    Attributes:
        reason: why, for people: a clause without a full stop, such as "the Python package triton is not installed".
    """

    reason: str

    def __str__(self) -> str:
        return self.reason


LONGEST = 200  # characters of somebody else's exception that people are shown


def in_short(error: BaseException) -> str:
    """What an exception says, for people: its first line, not too long and without the full stop."""
    return (str(error).strip().splitlines() or [repr(error)])[0][:LONGEST].rstrip(".")
