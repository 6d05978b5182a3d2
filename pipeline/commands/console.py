"""Text to and from the console: results on stdout, everything else on stderr, whatever the two can show or take.

A stream that is closed, broken or full costs what would be written to it, and never a video. Knows no commands.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..errors import InputError, printable
from ..facts.language import spoken
from ..parallel.launch import OURS, rank
from .log import Level, keep, shown

if TYPE_CHECKING:
    from ..run.progress import ConsoleProgress

BAD_INPUT = 2
INTERRUPTED = 130
ENDINGS = InputError, OSError, KeyboardInterrupt  # how a command ends that is not well and no fault of the program
LAYOUT = "\n\t"  # control characters that a result of several lines has


def say(text: str, exact: bool = False) -> None:
    """A result, on stdout. One who stopped reading (``| head``) is no error, and neither is a closed stdout.

    Args:
        exact: a program gets it unchanged, as a path; else control characters are escaped, as on every terminal.

    Raises:
        InputError: it cannot be written, as on a full disk.
    """
    keep(text, "info")
    try:
        unchanged = exact and sys.stdout is not None and not sys.stdout.isatty()
        write(sys.stdout, text if unchanged else printable(text, LAYOUT))
    except BrokenPipeError:
        _silence(sys.stdout)
    except UnicodeEncodeError as error:
        raise InputError(
            f"the result, {text!r}, has characters that are no Unicode; give the file another name."
        ) from error
    except OSError as error:
        _silence(sys.stdout)
        raise InputError(f"the result cannot be written to standard output ({error.strerror}).") from error


def note(text: str) -> None:
    """Anything else, on stderr; where that cannot be written, nobody hears it."""
    _tell(printable(spoken(text), LAYOUT) + "\n")


def _tell(text: str, level: Level = "info") -> None:
    if text.endswith("\n"):  # no line that the next one takes the place of
        keep(text, level)
    if not shown(level):
        return
    try:
        write(sys.stderr, text, end="")
    except (OSError, ValueError):  # ValueError: it was closed by somebody
        _silence(sys.stderr)


class Messages:
    """Lines of progress, for ``note``."""

    def isatty(self) -> bool:
        try:
            return sys.stderr is not None and sys.stderr.isatty()
        except ValueError:
            return False

    def write(self, text: str) -> None:
        _tell(text)

    def warn(self, text: str) -> None:
        """The same for what may be a mistake."""
        _tell(text, "warning")


def progress_lines() -> ConsoleProgress:
    """Shows a run on stderr."""
    from ..run.progress import ConsoleProgress

    messages = Messages()
    return ConsoleProgress(messages, warn=messages.warn)


def refuse(sentence: str) -> None:
    """Why there is no result, as ``error: …``; under torchrun once, and again in the report that it ends with.

    A process that this program has started leaves it to the one that did.
    """
    sentence = spoken(sentence)
    report = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if report:
        when = {"py_callstack": f"error: {sentence}", "timestamp": str(int(time.time()))}
        with contextlib.suppress(OSError):
            Path(report).write_text(json.dumps({"message": {"message": sentence, "extraInfo": when}}), encoding="utf-8")
    if not report or _heard():
        _tell(printable(f"{spoken('error')}: {sentence}", LAYOUT) + "\n", "error")


def ended(error: InputError | OSError | KeyboardInterrupt) -> int:
    """Say how a command ended that raised this; returns its exit code.

    Raises:
        OSError: it is none of a file.
    """
    if isinstance(error, KeyboardInterrupt):
        if _heard():
            note("\ninterrupted")
        return INTERRUPTED
    if isinstance(error, OSError):  # of a file that nobody asked for before it was needed
        if error.filename is None:
            raise error
        todo = "check its permissions" if isinstance(error, PermissionError) else "check the path, or give another"
        error = InputError(f"{error.filename} cannot be opened ({error.strerror}); {todo}.")
    _tell("".join(traceback.format_exception(error)), "debug")  # where it came from
    refuse(str(error))
    return BAD_INPUT


def _heard() -> bool:
    """Whether this is the process of a run that says how it ended."""
    return rank() == 0 and OURS not in os.environ


def ask(question: str) -> str:
    """A question on the terminal; an end of input is an empty answer, and so is none at all."""
    with contextlib.suppress(OSError):
        write(sys.stderr, question, end="")
    try:
        return "" if sys.stdin is None else sys.stdin.readline()
    except (OSError, ValueError):  # closed, or no text
        return ""


def write(stream: TextIO | None, text: str, end: str = "\n") -> None:
    """Text. A terminal gets what it cannot show escaped; a file or a pipe gets UTF-8, and never another text.

    None, a stream that was closed from the start, takes nothing.

    Raises:
        UnicodeEncodeError: the text is no Unicode, and not for people alone.
    """
    if stream is None:
        return
    if isinstance(stream, io.TextIOWrapper) and not stream.isatty():
        stream.reconfigure(encoding="utf-8", errors="backslashreplace" if stream is sys.stderr else "strict")
        stream.write(text + end)
    else:
        encoding = stream.encoding or "ascii"
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + end)
    stream.flush()


def open_what_is_closed() -> None:
    """See that the numbers of stdin, stdout and stderr are taken.

    Where a shell has closed one (``2>&-``), the next file that is opened gets its number: a video into which FFmpeg,
    which knows only numbers, would then write its messages.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free: this one


def _silence(stream: TextIO) -> None:
    """Let what Python still flushes at its end go nowhere."""
    with contextlib.suppress(OSError, ValueError):  # no stream of the system's
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
