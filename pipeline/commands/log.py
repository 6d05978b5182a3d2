"""How much of what is said the terminal shows (``--log_level``), and a file that keeps all of it (``--log_file``).

Both hold for a process and those that it starts, so they stand in the environment while a command runs; a user may set
them there for good. Knows no commands and writes to no stream.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

from ..errors import InputError, printable
from ..facts.language import VARIABLE, language_of

Level = Literal["error", "warning", "info", "debug"]
LEVELS: tuple[Level, ...] = get_args(Level)
LEVEL, FILE = "INFINITETALK_LOG_LEVEL", "INFINITETALK_LOG_FILE"
FLAGS = {"--lang": VARIABLE, "--log_level": LEVEL, "--log_file": FILE}  # of every command


@contextlib.contextmanager
def without_common_flags(argv: list[str]) -> Iterator[list[str]]:
    """The words without those flags that every command has, whose values hold in the meantime.

    Raises:
        InputError: a value is not right, or the file cannot be written.
    """
    before = {name: os.environ.get(name) for name in FLAGS.values()}
    try:
        rest = list(argv)
        for flag, variable in FLAGS.items():
            place = next((n for n, word in enumerate(rest) if word.partition("=")[0] == flag), None)
            if place is None:
                continue
            _, equals, value = rest[place].partition("=")
            end = place + (1 if equals else 2)
            os.environ[variable] = _checked(flag, value if equals else " ".join(rest[place + 1 : end]))
            del rest[place:end]
        yield rest
    finally:
        for name, old in before.items():
            os.environ.pop(name, None)
            os.environ.update({} if old is None else {name: old})


def _checked(flag: str, value: str) -> str:
    if flag == "--lang":
        return language_of(value)
    if flag == "--log_level":
        if value not in LEVELS:
            raise InputError(f"--log_level: {value!r} found, one of {', '.join(LEVELS)} expected.")
        return value
    path = Path(value).expanduser().absolute()
    try:
        with path.open("a", encoding="utf-8"):
            return str(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"--log_file: {value!r} cannot be written ({reason}); give another file.") from error


def shown(level: Level) -> bool:
    """Whether the terminal shows what is of this level."""
    chosen = os.environ.get(LEVEL, "info")
    names: tuple[str, ...] = LEVELS
    return names.index(level) <= names.index(chosen if chosen in names else "info")


def keep(text: str, level: Level) -> None:
    """Add lines to the file, if there is one. What happens to it ends no run."""
    path = os.environ.get(FILE)
    if not path or not text.strip():
        return
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    lines = "".join(f"{now} {level:7} {printable(line)}\n" for line in text.strip().splitlines())
    with contextlib.suppress(OSError), Path(path).open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(lines)
