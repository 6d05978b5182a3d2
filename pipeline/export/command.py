"""Settings as a command that a shell runs: quoting for sh and for PowerShell, broken into readable lines.

sh carries every text; in $'…', which shows none of them, where there are control characters in it. Windows PowerShell
5.1 hands double quotes, empty words and a backslash at a word's end wrongly to programs, and later versions do it
otherwise; texts with these, and with control characters, go through a file for ``--input_json``, which the
command writes first. Knows nothing of graphs, and not what flags mean.
"""

from __future__ import annotations

import json
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from ..errors import CONTROLS, InputError
from ..settings.definition import Settings, names_with, setting_infos
from ..settings.flags import to_argv
from ..settings.roles import Json, Role
from ..settings.validation import resolve, warnings_for
from .exported import Exported

SHELLS = ("sh", "powershell")
PROGRAM = ("python", "generate_infinitetalk.py")  # in a clone, as in upstream's documentation
_ENDINGS = {"sh": ".sh", "powershell": ".ps1"}
_WIDTH = 100  # a longer command gets a line for each flag
ANSI_NOTE = "It has control characters, written as $'…': run it with bash, zsh or ksh; dash does not know that."
_CONTROL = re.compile(f"[{CONTROLS}]")
_HIDDEN = re.compile(f"(?![\n\t])[{CONTROLS}]")  # all but what lays out a text, which quotes carry
_POWERSHELL_QUOTES = re.compile("(['\u2018\u2019\u201a\u201b])")  # all of them end a text in single quotes


@dataclass(frozen=True)
class Command:
    """A command as text, for one shell.

    Attributes:
        text: what to run; lines are joined by the shell's own sign, or are commands of their own.
        notes: what the user should know, a sentence each.
        take: what is to be said on how near its video is to the one that was exported, a line each.
    """

    text: str
    notes: tuple[str, ...]
    shell: str
    take: tuple[str, ...] = ()

    @property
    def with_notes(self) -> str:
        """With the notes, as comments before it."""
        return "\n".join([*map(comment, (*self.notes, *self.take)), self.text])

    @property
    def file(self) -> str:
        """A name for its file."""
        return f"infinitetalk_command{_ENDINGS[self.shell]}"

    @property
    def content(self) -> bytes:
        """What to write into that file. Windows PowerShell takes a script without a mark for ANSI."""
        return (self.with_notes + "\n").encode("utf-8-sig" if self.shell == "powershell" else "utf-8")


def own_shell() -> str:
    """The shell that this machine's users have."""
    return "powershell" if os.name == "nt" else "sh"


def command(exported: Exported, shell: str, full: bool = False, program: tuple[str, ...] = PROGRAM) -> Command:
    """The command that makes the video.

    Args:
        full: every setting that has a value, not only those that differ from the preset and the defaults.
        program: the words before the flags.

    Raises:
        InputError: a path that the shell cannot hand over.
    """
    settings, prelude = _texts_in_file(exported.settings, shell)
    notes = (*exported.notes, *warnings_for(resolve(settings)))
    made = line(program, flags(settings, full), shell)
    if shell == "sh" and _HIDDEN.search(" ".join(to_argv(settings))):
        notes = (*notes, ANSI_NOTE)
    return Command("\n".join([*prelude, made]), notes, shell, exported.take.lines if exported.take else ())


def comment(sentence: str) -> str:
    """A sentence as a comment of one line, whatever names it repeats out of a graph."""
    return "# " + re.sub(f"[{CONTROLS}]+", " ", sentence)


def flags(settings: Settings, full: bool) -> list[str]:
    """``to_argv`` without what only says how to run.

    Args:
        full: every flag that has a value, but for those that nothing reads here.
    """
    defaults, infos = Settings(), setting_infos()
    of_the_run = [name for name in names_with(Role.RUN) if not infos[name].widgets]  # a graph says the others
    argv = groups(to_argv(settings.replace(**{name: getattr(defaults, name) for name in of_the_run}), full))
    read_if_given = {*names_with(Role.JOB), *names_with(Role.LATER), *names_with(Role.UNREAD)}
    unread = [name for name in read_if_given if getattr(settings, name) == getattr(defaults, name)]
    unsaid = {f"--{name}" for name in (*of_the_run, *unread)}
    return [word for group in argv if group[0] not in unsaid for word in group]


def groups(argv: list[str]) -> list[list[str]]:
    """Each flag with its values. (A value that begins with a dash is part of its flag's word.)"""
    found: list[list[str]] = []
    for word in argv:
        if word.startswith("--"):
            found.append([])
        found[-1].append(word)
    return found


def line(program: tuple[str, ...], argv: list[str], shell: str, rest: tuple[str, ...] = ()) -> str:
    """Words as one command, on several lines if it is long.

    Args:
        rest: what follows, as the shell has it.
    """
    quote = {"sh": quote_sh, "powershell": quote_powershell}[shell]
    head = " ".join(quote(word) for word in program)
    if shell == "powershell" and head.startswith("'"):
        head = f"& {head}"
    parts = [head, *(" ".join(quote(word) for word in group) for group in groups(argv)), *rest]
    whole = " ".join(parts)
    return whole if len(whole) <= _WIDTH else {"sh": " \\\n    ", "powershell": " `\n    "}[shell].join(parts)


def quote_sh(word: str) -> str:
    """A word for sh.

    Raises:
        InputError: it is no text that can be part of a command.
    """
    _check_text(word)
    if not _HIDDEN.search(word):
        return shlex.quote(word)
    return "$'" + "".join(map(_escaped, word)) + "'"


def _escaped(character: str) -> str:
    """A character inside $'…', a control character by its bytes in octal."""
    if _CONTROL.match(character):
        return {"\n": r"\n", "\t": r"\t"}.get(character) or "".join(f"\\{byte:03o}" for byte in character.encode())
    return f"\\{character}" if character in "\\'" else character


def quote_powershell(word: str) -> str:
    """A word for PowerShell, which hands it unchanged to a program in every version.

    Raises:
        InputError: that cannot be done with this word.
    """
    _check_text(word)
    if not is_carried(word, "powershell"):
        raise InputError(
            f"PowerShell cannot hand over {word!r}: give the file or folder a name without double quotes, line breaks "
            "and other control characters, and a backslash at its end."
        )
    if re.fullmatch(r"(--)?[A-Za-z_][A-Za-z0-9_]*(\.py)?", word):
        return word
    return "'" + _POWERSHELL_QUOTES.sub(r"\1\1", word) + "'"


def is_carried(word: str, shell: str) -> bool:
    """Whether every version of the shell, and then our own parser, takes the word unchanged."""
    if shell == "powershell" and (word == "" or _CONTROL.search(word) or re.search(r'"|\\$', word)):
        return False
    return word != "--"  # which argparse of Python 3.11 and 3.12 drops


def write_json(name: str, entries: dict[str, Json], shell: str) -> str:
    """A command that writes the entries into a JSON file of this name in the current folder."""
    if shell == "powershell":  # -Encoding ascii means the same in every version
        text = json.dumps(entries)
        return f"Set-Content -Encoding ascii -LiteralPath {_literal(name)} -Value {_literal(text)}"
    text = json.dumps(entries, ensure_ascii=False, indent=4)  # no line of JSON is the word EOF
    text = _HIDDEN.sub(lambda found: json.dumps(found[0])[1:-1], text)  # of which JSON escapes the first 32 alone
    return f"cat > {quote_sh(name)} <<'EOF'\n{text}\nEOF"


def _literal(text: str) -> str:
    return "'" + _POWERSHELL_QUOTES.sub(r"\1\1", text) + "'"


def json_name(settings: Settings) -> str:
    """A name for the file of the texts, after the video's."""
    stem = "infinitetalk" if settings.save_file is None else settings.save_file.name.removesuffix(".mp4")
    return f"{stem}_input.json"


def _texts_in_file(settings: Settings, shell: str) -> tuple[Settings, list[str]]:
    """The settings with texts that the shell cannot carry in ``input_json``, and the command that writes it."""
    texts = {name: getattr(settings, name) for name in ("prompt", "negative_prompt")}
    awkward = {name: text for name, text in texts.items() if text is not None and not is_carried(text, shell)}
    if not awkward:
        return settings, []
    for text in awkward.values():
        _check_text(text)
    name = json_name(settings)
    settings = settings.replace(**dict.fromkeys(awkward), input_json=Path(name))
    return settings, [write_json(name, awkward, shell)]


def _check_text(word: str) -> None:
    if "\0" in word:
        raise InputError(f"{word!r} has a NUL character, which no command can carry; take it out.")
    try:
        word.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{word!r} is not Unicode text; give the file another name.") from error
