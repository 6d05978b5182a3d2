"""The table of commands: name, what it is for in a line, and the module that has its ``parser`` and ``run``.

Looking something up imports nothing; a command's module is imported when it is asked for. The first in the table is
the one that flags without a command mean.
"""

from __future__ import annotations

import argparse
import difflib
from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from ..settings.flags import Parser

NEAR = 0.7  # how alike a word must be to a command's name to be taken for a slip, from 0 to 1
SHORTEST = 2  # letters that a command's beginning must have
MEANT = {  # words of other programs
    **dict.fromkeys(("run", "make", "create", "sample", "infer", "inference"), "generate"),
    **dict.fromkeys(("list", "ls"), "presets"),
    **dict.fromkeys(("check", "diagnose", "env"), "doctor"),
    **dict.fromkeys(("quantize", "quantise"), "convert"),
    **dict.fromkeys(("version", "v"), "--version"),
    **dict.fromkeys(("h", "?", "/?", "commands"), "help"),
}


class CommandModule(Protocol):
    """What a command's module has."""

    def parser(self) -> Parser:
        """The command's flags, and with them its help; imports nothing heavy."""

    def run(self, args: argparse.Namespace) -> int:
        """Do what ``parser``'s result asks for; returns the exit code.

        Raises:
            InputError: bad input.
        """


@dataclass(frozen=True)
class Command:
    """A row of the table. ``module`` is relative to this folder."""

    name: str
    line: str
    module: str

    def load(self) -> CommandModule:
        """Its module."""
        return cast(CommandModule, import_module(self.module, __package__))


_ROWS = (
    Command("generate", "make a talking video; its name may be left out before flags", ".generate"),
    Command("batch", "many videos by a manifest, on every card or a cluster; goes on where it stopped", ".batch"),
    Command("presets", "the presets in a table", ".presets"),
    Command("recommend", "the preset for a purpose and a card, and its whole command", ".recommend"),
    Command("download", "the models of a preset, fetched, checked and put where they are looked for", ".download"),
    Command("info", "the settings that a video was made with", ".info"),
    Command("export", "a ComfyUI graph as a command; or a video, once more what made it", ".export"),
    Command("inspect", "what a weights file or a LoRA is, where it fits, what would be refused", ".inspect"),
    Command("convert", "the transformer with 8-bit matrices in one file that loads in seconds", ".convert"),
    Command("evaluate", "does a drawn face's mouth follow the speech: numbers and a picture", ".evaluate"),
    Command("doctor", "versions, the card, what is fast here, and why what is missing matters", ".doctor"),
    Command("bench", "what the card can do, in two minutes, without weights", ".bench"),
    Command("completion", "a script that completes commands and flags in bash, zsh, fish or PowerShell", ".completion"),
    Command("help", "this list; with a name, all about that command", ".help"),
)
COMMANDS: dict[str, Command] = {row.name: row for row in _ROWS}
USUAL = _ROWS[0].name


def near_command(word: str) -> str | None:
    """The command that was probably meant by a word that is none."""
    if word.lower() in MEANT:
        return MEANT[word.lower()]
    begun = [name for name in COMMANDS if len(word) >= SHORTEST and name.startswith(word.lower())]
    near = begun or difflib.get_close_matches(word.lower(), COMMANDS, n=1, cutoff=NEAR)
    return near[0] if near else None
