"""What made a video: the record that it carries, told in lines.

The record may come from another version, with other settings.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import printable
from ..job.record import Record, read_record
from ..settings.definition import NEGATIVE_PROMPT, Settings, names_with
from ..settings.flags import Parser
from ..settings.roles import Json, Role
from ..settings.validation import resolve
from .console import say


def parser() -> Parser:
    """The flags of the command."""
    found = Parser("infinitetalk info", "VIDEO [--full]", "The settings and the job that a video made here carries.")
    found.add_argument("video", type=Path, metavar="VIDEO", help="a finished video")
    found.add_argument("--full", action="store_true", help="all settings, not only those that are not the defaults")
    return found


def run(args: argparse.Namespace) -> int:
    """Print what is stored.

    Raises:
        InputError: see ``read_record``.
    """
    say(describe(read_record(args.video), args.full))
    return 0


def describe(record: Record, full: bool = False) -> str:
    """The record as lines of text: the job, then settings that are not the defaults, or in ``full`` all of them."""
    defaults = resolve(Settings()).as_json()
    untold = {*names_with(Role.JOB), *names_with(Role.RUN)}  # the job says them, or nothing about the video
    lines = [f"version: {printable(record.version)}"]
    for name, value in record.job.items():
        if full or (name, value) != ("negative_prompt", NEGATIVE_PROMPT):
            lines.append(f"{printable(name)}: {_text(value)}")
    for name, value in record.settings.items():
        if full or (name not in untold and value != defaults.get(name)):
            lines.append(f"--{printable(name)} {_text(value)}")
    return "\n".join(lines)


def _text(value: Json) -> str:
    if isinstance(value, list):
        return " ".join(_text(single) for single in value)
    return printable(value) if isinstance(value, str) else json.dumps(value)
