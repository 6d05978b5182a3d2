"""The language that people are spoken to in: English, as sentences arise, or Chinese, from chinese.toml beside this.

A sentence is translated where it leaves the program, by the template that it was made from; what is in its fields is
translated in the same way. A sentence that has no entry stays English; a test sees that all have one. Knows nothing of
who speaks.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ..errors import InputError

VARIABLE = "INFINITETALK_LANG"
LANGUAGES = ("en", "zh")
_PLACES = (VARIABLE, "LC_ALL", "LC_MESSAGES", "LANG")  # the first that says something counts
_TELLING = 8  # letters that a template must have to be told from others anywhere in a sentence
_DEEPEST = 3  # templates in fields of templates


def language(environment: Mapping[str, str] | None = None) -> str:
    """ "zh" where the environment asks for Chinese, else "en"."""
    environment = os.environ if environment is None else environment
    said = next((environment[name] for name in _PLACES if environment.get(name)), "")
    return "zh" if said.lower().startswith("zh") else "en"


def spoken(text: str) -> str:
    """A sentence, or several lines, in the language of this process."""
    return chinese(text) if language() == "zh" else text


def setting_help(name: str, english: str) -> str:
    """What a setting does, in the language of this process."""
    return texts()["settings"][name] if language() == "zh" else english


def language_of(word: str) -> str:
    """The value of ``--lang``.

    Raises:
        InputError: another language.
    """
    if word not in LANGUAGES:
        raise InputError(f"--lang: {word!r} found, one of {', '.join(LANGUAGES)} expected.")
    return word


@dataclass(frozen=True)
class Template:
    """An English sentence with fields, and the Chinese one, whose fields are named by their number in the English."""

    english: str
    chinese: str

    @property
    def literals(self) -> tuple[str, ...]:
        """What stands between the fields."""
        parts = [""]
        for token in re.findall(r"\{\{|\}\}|\{\}|[^{}]+", self.english):
            if token == "{}":
                parts.append("")
            else:
                parts[-1] += {"{{": "{", "}}": "}"}.get(token, token)
        return tuple(parts)

    @property
    def letters(self) -> int:
        return sum(map(len, self.literals))

    def fields_in(self, text: str) -> tuple[str, ...] | None:
        """The fields of a text that was made from this template, or None."""
        if not all(literal in text for literal in self.literals):
            return None
        found = re.fullmatch("(.*?)".join(map(re.escape, self.literals)), text, re.DOTALL)
        return None if found is None else found.groups()


@cache
def texts() -> dict[str, dict[str, str]]:
    """chinese.toml: ``sentences`` by English template, ``settings`` by name, ``words``."""
    return tomllib.loads(Path(__file__).with_name("chinese.toml").read_text(encoding="utf-8"))


@cache
def templates() -> tuple[Template, ...]:
    """All, those with most letters of their own first."""
    found = [Template(english, said) for english, said in texts()["sentences"].items()]
    return tuple(sorted(found, key=lambda template: -template.letters))


def chinese(text: str) -> str:
    """The text in Chinese, line by line, as far as it is known."""
    return "\n".join(_line(line, _DEEPEST) for line in text.split("\n"))


def _line(text: str, depth: int) -> str:
    if not depth or not re.search("[A-Za-z]{2}", text):
        return text
    if text in texts()["words"]:
        return texts()["words"][text]
    head, colon, rest = text.partition(": ")
    if colon and (known := _known(rest, depth, _TELLING)) is not None:
        return f"{_line(head, depth - 1)}: {known}"
    known = _known(text, depth, _TELLING)
    return known or _known(text, depth, 1) or text


def _known(text: str, depth: int, letters: int) -> str | None:
    for template in templates():
        if template.letters >= letters and (fields := template.fields_in(text)) is not None:
            return template.chinese.format(*(_line(field, depth - 1) for field in fields))
    return None
