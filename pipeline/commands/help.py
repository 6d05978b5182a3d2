"""``infinitetalk help [NAME]``: all commands in a list, or all about one; and what a bare ``infinitetalk`` says."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..errors import InputError
from ..export.command import line, own_shell
from ..facts.language import spoken
from ..settings.flags import Parser, to_argv
from ..settings.presets import DEMO, load_preset, settings_with_preset
from .console import say
from .table import COMMANDS, near_command

_ABOUT = "InfiniteTalk makes a talking video of any length from a portrait or a video, and speech."
_MORE = """\
infinitetalk COMMAND --help tells all about a command; infinitetalk generate --help lists the flags of a
video. In a clone, python generate_infinitetalk.py is the same program; without words it generates.
Exit codes: 0 done (also for infinitetalk without words), 2 bad input, 3 some jobs of a batch failed, 130 interrupted.
With every command: --lang en or zh (or LANG) chooses the language of help, errors and notices; --log_level error,
warning, info or debug how much of them is shown; --log_file FILE keeps all of them, with their times."""
_MOST_USED = "generate", "recommend", "download", "doctor"


def parser() -> Parser:
    """The flags of the command."""
    found = Parser("infinitetalk help", "[NAME]", "Lists the commands, or tells all about one.")
    found.add_argument("name", nargs="?", metavar="NAME", help="a command")
    return found


def run(args: argparse.Namespace) -> int:
    """Print the list, or the help of a command."""
    say(commands_list() if args.name is None else help_of(args.name))
    return 0


def help_of(name: str) -> str:
    """What ``infinitetalk NAME --help`` prints.

    Raises:
        InputError: there is no such command.
    """
    if name not in COMMANDS:
        near = near_command(name)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(COMMANDS)}."
        raise InputError(f"{name!r} is not a command; {hint}")
    return COMMANDS[name].load().parser().format_help().rstrip()


def commands_list() -> str:
    """All commands, and how to learn more; ``infinitetalk --help``."""
    return "\n".join(
        [
            "usage: infinitetalk COMMAND ...",
            "       infinitetalk --ckpt_dir DIR --infinitetalk_dir FILE --wav2vec_dir DIR [flags]",
            "",
            spoken(_ABOUT),
            "",
            spoken("Commands:"),
            *_lines(tuple(COMMANDS)),
            "",
            spoken(_MORE),
        ]
    )


def overview() -> str:
    """What ``infinitetalk`` alone says: what it is, how to see it work, what is used most."""
    return "\n".join(
        [
            spoken(_ABOUT),
            "",
            spoken("A first video, with the small model that is inside (drawn faces; a minute or so without a card):"),
            "",
            demo_command(),
            "",
            spoken("Most used:"),
            *_lines(_MOST_USED),
            "",
            spoken("infinitetalk help lists all commands."),
        ]
    )


def demo_command() -> str:
    """The line that makes a video with the bundled model, for this machine's shell."""
    settings = settings_with_preset(DEMO, save_file=Path(load_preset(DEMO).about.output_name))
    return line(("infinitetalk",), to_argv(settings), own_shell())


def _lines(names: tuple[str, ...]) -> list[str]:
    width = max(map(len, COMMANDS)) + 2
    return [f"  {name:<{width}}{spoken(COMMANDS[name].line)}" for name in names]
