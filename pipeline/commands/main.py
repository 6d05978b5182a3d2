"""The command line: words in, an exit code out; every way a run can end has its own.

0 done, 2 bad input (one sentence on stderr), 130 interrupted. stdout gets the result alone: the video's path, a
plan, a table; everything else goes to stderr. Knows of commands what their table says: nothing heavy is imported
before the flags are known to be right.
"""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path

from ..errors import InputError
from ..version import __version__
from .console import ENDINGS, ended, open_what_is_closed, say
from .log import keep, without_common_flags
from .table import COMMANDS, USUAL, near_command

HELP = ("-h", "--help")
VERSION = ("-V", "--version")


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code.

    Args:
        argv: the words after the program's name; None takes those of this process.
    """
    _let_threads_sleep()
    open_what_is_closed()
    try:
        with without_common_flags(sys.argv[1:] if argv is None else argv) as words:
            try:
                return _dispatch(words)
            except ENDINGS as error:
                return ended(error)
            except Exception:
                keep(traceback.format_exc(), "error")  # which Python prints
                raise
    except InputError as error:  # of one of those flags
        return ended(error)


def _let_threads_sleep() -> None:
    """Let the threads of PyTorch, which is not imported yet, sleep while they wait for each other.

    Those that spin take the time of a busy machine from the thread that they wait for. How many there are, and so every
    bit of the result, stays the same: it must not follow from the load either.
    """
    os.environ["OMP_DYNAMIC"] = "false"
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ):
        os.environ["OMP_WAIT_POLICY"] = "passive"


def _dispatch(argv: list[str]) -> int:
    if not argv:
        from .help import overview

        say(overview())
        return 0
    if argv[0] in HELP:
        return _run("help", [])
    if argv[0] in VERSION:
        return _version()
    if argv[0] in COMMANDS:
        return _run(argv[0], argv[1:])
    if argv[0][:1] in ("-", "\N{EN DASH}", "\N{EM DASH}", "\N{MINUS SIGN}"):
        return _run(USUAL, argv)
    raise InputError(_no_command(argv[0]))


def _run(name: str, argv: list[str]) -> int:
    command = COMMANDS[name].load()
    parser = command.parser()
    if any(word in VERSION for word in argv):
        return _version()
    if any(word in HELP for word in argv) or argv == ["help"] and not Path("help").exists():
        say(parser.format_help().rstrip())
        return 0
    try:
        return command.run(parser.parse_args(argv))
    except InputError as error:
        if name == USUAL or str(error).startswith(f"{name}: "):
            raise
        raise InputError(f"{name}: {error}") from error


def _version() -> int:
    say(f"infinitetalk {__version__}")
    return 0


def _no_command(word: str) -> str:
    if Path(word).suffix:
        return f"{word!r} stands where a flag was expected; name files by --image, --audio and so on."
    near = near_command(word)
    hint = f"did you mean {near}? (infinitetalk help lists all.)" if near else "infinitetalk help lists all."
    return f"{word!r} is not a command; {hint}"
