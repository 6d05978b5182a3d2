"""Who speaks when: a timeline for one recording of several people, or for recordings of each.

From a JSON or an RTTM file, or from how the recording is made: a channel or a track for each speaker. Reads no sound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import InputError, in_short
from ..facts.json_text import read_json
from .speakers import Speaker, Turn

CHANNELS, TRACKS = "channels", "tracks"
Turns = Mapping[str, tuple[Turn, ...]]  # by the speaker's name
_EXPECTED = 'a JSON like {"anna": [[0, 2.5], [4, 6]], "ben": [[2.5, 4]]}, or an RTTM file, expected'


def with_timeline(speakers: tuple[Speaker, ...], timeline: str, recording: Path | None) -> tuple[Speaker, ...]:
    """The speakers, each with when or where in the recording it is them who speak.

    Args:
        speakers: of --speaker; where there are none, those of the timeline, by their first turns.
        timeline: "channels", "tracks" or a file.
        recording: --audio; needed by those who have no sound of their own.

    Raises:
        InputError: the file cannot be read, names do not fit, or there is no recording.
    """
    if timeline in (CHANNELS, TRACKS):
        if recording is None or any(speaker.speech is not None for speaker in speakers):
            raise InputError(f"--timeline {timeline} takes one recording with --audio, and no audio in --speaker.")
        count = len(speakers) or 2
        speakers = speakers or (Speaker(None),) * count
        if timeline == CHANNELS:
            return tuple(replace(one, speech=recording, channel=number) for number, one in enumerate(speakers))
        return tuple(replace(one, speech=recording, track=number) for number, one in enumerate(speakers))
    turns = read_timeline(Path(timeline))
    if not speakers:
        speakers = tuple(Speaker(None, name=name) for name in turns)
    named = [
        speaker if speaker.name else replace(speaker, name=name) for speaker, name in zip(speakers, turns, strict=False)
    ]
    named += speakers[len(named) :]
    missing = [speaker.name or str(speaker) for speaker in named if speaker.name not in turns]
    spare = [name for name in turns if name not in {speaker.name for speaker in named}]
    if missing or spare:
        raise InputError(
            f"--timeline: {timeline} has turns of {', '.join(turns)}, --speaker names "
            f"{', '.join(speaker.name or 'nobody' for speaker in named)}; give each name=NAME of the timeline."
        )
    if recording is None and any(speaker.speech is None for speaker in named):
        raise InputError("--timeline: turns of what? Give the recording with --audio, or audio= in --speaker.")
    return tuple(replace(speaker, speech=speaker.speech or recording, turns=turns[speaker.name]) for speaker in named)


def read_timeline(path: Path) -> Turns:
    """Everybody's turns, by name, in the order of their first ones.

    Raises:
        InputError: no such file, or nothing of a timeline in it.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"--timeline: {path} {found}; {_EXPECTED}, or channels or tracks.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--timeline: {path} is not text in UTF-8; {_EXPECTED}.") from error
    rttm = "SPEAKER" in text.split() and not text.lstrip().startswith(("{", "["))
    listed = _rttm(text, path) if rttm else _json(text, path)
    turns: dict[str, list[Turn]] = {}
    for name, start, end in sorted(listed, key=lambda one: one[1]):
        turns.setdefault(name, []).append(Turn(start, end))
    if not turns:
        raise InputError(f"--timeline: {path} has no turns in it; {_EXPECTED}.")
    return {name: tuple(those) for name, those in turns.items()}


def _rttm(text: str, path: Path) -> list[tuple[str, float, float]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words[:1] != ["SPEAKER"]:
            continue
        if len(words) < 8:
            raise InputError(f"--timeline: line {number} of {path} is no RTTM; it has {len(words)} fields of 8.")
        start, length = (_seconds(word, f"line {number} of {path}") for word in words[3:5])
        found.append(_turn(words[7], start, start + length, f"line {number} of {path}"))
    return found


def _json(text: str, path: Path) -> list[tuple[str, float, float]]:
    try:
        entries = read_json(text)
    except ValueError as error:
        raise InputError(f"--timeline: {path} is neither JSON ({in_short(error)}) nor RTTM; {_EXPECTED}.") from error
    try:
        if isinstance(entries, dict):
            listed = [(name, *turn) for name, turns in entries.items() for turn in turns]
        else:
            listed = [(entry["speaker"], entry["start"], entry["end"]) for entry in entries]
        triples = [(str(name), start, end) for name, start, end in listed]
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(f"--timeline: {path} is JSON, but no timeline; {_EXPECTED}.") from error
    return [_turn(name, _seconds(a, str(path)), _seconds(b, str(path)), str(path)) for name, a, b in triples]


def _seconds(value: object, where: str) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        seconds = float(value)  # type: ignore[arg-type]  # whatever a file holds
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(f"--timeline: {value!r} in {where} is no time in seconds.") from None
    return seconds


def _turn(name: str, start: float, end: float, where: str) -> tuple[str, float, float]:
    if end <= start:
        raise InputError(f"--timeline: in {where} {name} ends at {end:g} s, before the beginning at {start:g} s.")
    return name, start, end
