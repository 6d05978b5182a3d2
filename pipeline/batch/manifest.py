"""A manifest: one line for each video, with settings by name, as JSONL, JSON or CSV. Read without PyTorch.

A line that is not right is a job that fails, with a sentence, and costs no other one; only a file that cannot be read
as a whole is refused. Paths are relative to the manifest. Judges no values (``settings.validation``), opens no other
file, and knows nothing of how videos are made.
"""

from __future__ import annotations

import csv
import dataclasses
import difflib
import io
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CONTROLS, InputError, in_short
from ..facts.json_text import read_json
from ..settings.definition import names_with, setting_infos, setting_types
from ..settings.flags import MEANT, value_from_text
from ..settings.roles import JOB, RUN, SettingType, Value, Values

LINES, LIST, TABLE, TABBED = (".jsonl", ".ndjson"), ".json", ".csv", ".tsv"
ID = "id"
SEPARATOR = ";"  # of several values in a cell
LONGEST_ID = 200  # bytes: file systems take names of 255, and an unfinished video's has more
_UNSAFE = re.compile(f'[{CONTROLS}\\\\:*?"<>|]')  # what some system does not take in a name
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # of Windows
_UNFINISHED = (".partial", ".tmp")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Line:
    """A job of a manifest.

    Attributes:
        place: where it stands, for people: "line 7".
        id: of the job, which names its video; the place, where there is none that can.
        values: of settings, by name, paths as seen from here.
        refusal: why it cannot be made, or empty.
    """

    place: str
    id: str
    values: Values
    refusal: str = ""


def read_manifest(path: Path) -> tuple[Line, ...]:
    """The jobs of a manifest, in its order.

    Raises:
        InputError: it cannot be read, is of another kind, or holds no job.
    """
    text = _read(path)
    ending = path.suffix.lower()
    if ending in LINES:
        found = list(_json_lines(text))
    elif ending == LIST:
        found = list(_json_list(path, text))
    elif ending in (TABLE, TABBED):
        found = list(_table(path, text, tabs=ending == TABBED))
    else:
        raise InputError(f"{path} is no manifest: one ending in .jsonl, .json or .csv expected.")
    if not found:
        raise InputError(f"{path} has no jobs in it; write a line for each video.")
    return tuple(_distinct(line_of(path.parent, number, place, job) for number, (place, job) in enumerate(found, 1)))


def refusal(sentence: str) -> str:
    """A sentence as an error's is, with what it repeats out of files escaped."""
    return str(InputError(sentence))


def in_a_line() -> tuple[str, ...]:
    """The settings that a line may give; the others are of the whole run."""
    return tuple(name for name in setting_types() if name not in (*names_with(RUN), "save_file", "device"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise InputError(f"{path} is not text in UTF-8; save it as UTF-8.") from error
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} cannot be read ({reason}); give a manifest.") from error


def _json_lines(text: str) -> Iterator[tuple[str, dict | str]]:
    """Each line's place, and its object, or what is wrong with it."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            job = read_json(line)
        except ValueError as error:
            yield f"line {number}", refusal(f"it is not JSON ({in_short(error)}); write one object on a line.")
        else:
            yield f"line {number}", _object(job)


def _json_list(path: Path, text: str) -> Iterator[tuple[str, dict | str]]:
    try:
        jobs = read_json(text)
    except ValueError as error:
        raise InputError(
            f"{path} is not JSON ({in_short(error)}); where each line is an object, end its name in .jsonl."
        ) from error
    if not isinstance(jobs, list):
        raise InputError(f"{path} holds no list; write [{{...}}, {{...}}], an object for each video.")
    for number, job in enumerate(jobs, 1):
        yield f"job {number}", _object(job)


def _object(job: Any) -> dict | str:
    if isinstance(job, dict):
        return job
    found = in_short(ValueError(repr(job)))
    return refusal(f'{found} found, an object such as {{"image": "me.png", "audio": "a.wav"}} expected.')


def _table(path: Path, text: str, tabs: bool) -> Iterator[tuple[str, dict | str]]:
    """Rows of cells under names; an empty cell says nothing."""
    first = text.split("\n", 1)[0]
    delimiter = "\t" if tabs else max(",;\t", key=first.count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    begin = 1
    try:
        head = [_setting(cell.strip()) for cell in next(rows, [])]
        _check_head(path, head)
        while True:
            begin = rows.line_num + 1
            row = next(rows, None)
            if row is None:
                return
            if not any(cell.strip() for cell in row):
                continue
            if len(row) > len(head) and any(row[len(head) :]):
                sentence = refusal(f"it has {len(row)} cells under {len(head)} names; put quotes around commas.")
                yield f"line {begin}", sentence
            else:
                cells = zip(head, row, strict=False)
                yield f"line {begin}", {name: _cell(name, cell) for name, cell in cells if name and cell.strip()}
    except csv.Error as error:
        raise InputError(f"{path}, line {begin}: it is not CSV ({in_short(error)}); mend the quotes.") from error


def _check_head(path: Path, head: list[str]) -> None:
    for name in head:
        if name and name != ID and (problem := _not_in_a_line(name)):
            raise InputError(f"{path}: {problem}")
        if name and head.count(name) > 1:
            raise InputError(f"{path}: the column {name} is there twice; leave one out.")


def _cell(name: str, cell: str) -> str | list[str]:
    several = name in setting_types() and setting_types()[name].several
    return [part.strip() for part in cell.split(SEPARATOR)] if several else cell


def _setting(word: str) -> str:
    """The setting that a word means: one written as a flag counts as well."""
    return word.removeprefix("--").replace("-", "_") if isinstance(word, str) and word.startswith("--") else word


def _not_in_a_line(name: str) -> str:
    """Why a line cannot give this; empty if it can."""
    if name in in_a_line():
        return ""
    if name == "save_file":
        return refusal("save_file: a video of a batch is named by its id; give id instead.")
    if name in setting_infos():
        return refusal(f"{name}: it is for the whole batch; give it as a flag.")
    known = [*in_a_line(), ID]
    near = [MEANT[name]] if MEANT.get(name) in known else difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]}?" if near else "docs/settings.md lists all."
    return refusal(f"{in_short(ValueError(repr(name)))} is no setting; {hint}")


def line_of(folder: Path, number: int, place: str, job: dict | str) -> Line:
    """The line of a job.

    Args:
        folder: that paths start from.
        number: of the job, from 1, which names it if nothing else does.
        job: values by name, as JSON or a table has them; or what is wrong with it.
    """
    if isinstance(job, str):
        return Line(place, place, {}, job)
    entries = {_setting(name): value for name, value in job.items()}
    given = entries.pop(ID, None)
    id, wrong = _id(given, f"{number:04d}")
    values: Values = {}
    try:
        for name, value in entries.items():
            if problem := _not_in_a_line(name):
                raise InputError(problem)
            if value is not None:
                values[name] = _value(folder, name, value)
    except InputError as error:
        wrong = wrong or str(error)
    return Line(place, id or place, values, wrong)


def _id(given: Any, usual: str) -> tuple[str, str]:
    """A job's id; or none, and what is wrong with the one that was given."""
    if given is None or given == "":
        return usual, ""
    if isinstance(given, bool) or not isinstance(given, str | int):
        found = in_short(ValueError(repr(given)))
        return "", refusal(f"id: {found} found, a text or a whole number expected.")
    text = unicodedata.normalize("NFC", str(given))
    reason = _unusable(text)
    if not reason:
        return text, ""
    return "", refusal(f"id: {in_short(ValueError(ascii(given)))} cannot name a file ({reason}).")


def _unusable(text: str) -> str:
    """Why a text cannot name a video."""
    if _SURROGATE.search(text):
        return "it is no Unicode"
    if _UNSAFE.search(text):
        return 'control characters and \\ : * ? " < > | stand in no name'
    if len(text.encode()) > LONGEST_ID:
        return f"more than {LONGEST_ID} bytes"
    for part in text.split("/"):
        if part in ("", ".", "..") or part[0] in " -" or part[-1] in " ." or part[0] == ".":
            return "no part of it is empty, begins with a dot, a dash or a space, or ends with a dot or a space"
        if _RESERVED.fullmatch(part):
            return "Windows keeps that name for itself"
    return "unfinished videos are named so" if text.lower().endswith(_UNFINISHED) else ""


def _value(folder: Path, name: str, value: Any) -> Value:
    """A value as settings have it; what is of another type stays, for ``validate`` to judge."""
    expected = setting_types()[name]
    if not expected.several:
        return _single(folder, name, expected, value)
    found = tuple(_single(folder, name, expected, each) for each in (value if isinstance(value, list) else [value]))
    return None if found == (None,) else found


def _single(folder: Path, name: str, expected: SettingType, value: Any) -> Any:
    if isinstance(value, str):
        if _SURROGATE.search(value):
            raise InputError(f"{name}: {ascii(value)[:80]} is no Unicode; write the text anew.")
        if "\0" in value:
            raise InputError(f"{name}: {value[:80]!r} has a NUL in it; take it out.")
        found = value_from_text(name, value.strip() if expected.kind in (bool, int, float) else value)
        return _placed(folder, name, found) if isinstance(found, Path) else found
    if isinstance(value, float) and expected.kind is int and value.is_integer():  # as tables with gaps have them
        return int(value)
    if isinstance(value, dict | list):
        raise InputError(f"{name}: {in_short(ValueError(repr(value)))} found, a single value expected.")
    return value


def _placed(folder: Path, name: str, path: Path) -> Path:
    """A path from here. Weights that do not lie beside the manifest are looked up by name, as everywhere."""
    path = path.expanduser()
    beside = folder / path
    return beside if JOB in setting_infos()[name].roles or beside.exists() else path


def _distinct(lines: Iterator[Line]) -> Iterator[Line]:
    """The same; one whose id an earlier one has is refused: on some systems capitals make no difference."""
    seen: dict[str, str] = {}
    for line in lines:
        key = line.id.casefold()
        if key in seen:
            problem = refusal(f"id: {line.id!r} is the id of {seen[key]} already; give it another.")
            line = dataclasses.replace(line, id=line.place, refusal=line.refusal or problem)
        seen.setdefault(key, line.place)
        yield line
