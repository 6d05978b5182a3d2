"""Who speaks in a video: a voice and a place, from flags, from upstream's JSON or given in Python.

A place is a region of the reference as it is given, before anything is cut off. Looks into no file but a timeline's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from ..media.audio import Sound
    from ..models.speech import EncodedSpeech

SIDES = ("left", "right")
SILENT = "none"  # in place of a sound file; upstream's JSON has "None"
EXPECTED = "audio=FILE[,region=left|right|box:LEFT,TOP,RIGHT,BOTTOM|mask:FILE][,name=NAME]"
_KEYS = ("audio", "region", "name")


@dataclass(frozen=True)
class Half:
    """The left or the right half of the reference, as upstream has them: without a margin of a twentieth."""

    side: str

    def __str__(self) -> str:
        return self.side


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of the reference; right and bottom are behind the last ones."""

    left: float
    top: float
    right: float
    bottom: float

    def __str__(self) -> str:
        return f"box:{self.left:g},{self.top:g},{self.right:g},{self.bottom:g}"


@dataclass(frozen=True)
class MaskFile:
    """A picture of the reference's size, white where the speaker is."""

    path: Path

    def __str__(self) -> str:
        return f"mask:{self.path}"


@dataclass(frozen=True, eq=False)
class MaskPixels:
    """The same in memory: [height, width], above 0.5 where the speaker is."""

    pixels: np.ndarray

    def __str__(self) -> str:
        import hashlib

        bits = (self.pixels > 0.5).tobytes()
        return f"mask:{hashlib.sha256(bits).hexdigest()[:16]} {self.pixels.shape[1]}x{self.pixels.shape[0]}"


Region = Half | Box | MaskFile | MaskPixels


@dataclass(frozen=True)
class Turn:
    """A time in which somebody speaks, in seconds of the sound."""

    start: float
    end: float


@dataclass(frozen=True)
class Speaker:
    """A voice and a place.

    Attributes:
        speech: a file, or sound in memory; None for one who says nothing.
        region: None for the whole picture, or, where several speak, to be found.
        turns: when ``speech`` is this speaker's; None for always.
        channel: of ``speech`` which is this speaker's, from 0; None for all.
        track: of a file which is this speaker's, among its tracks of sound from 0; None for the first that is usable.
        name: for people.
    """

    speech: Path | Sound | EncodedSpeech | None
    region: Region | None = None
    turns: tuple[Turn, ...] | None = None
    channel: int | None = None
    track: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.speech, str):
            object.__setattr__(self, "speech", Path(self.speech))

    def __str__(self) -> str:
        where = "" if self.region is None else f" ({self.region})"
        return f"{self.name or self.speech or 'silent'}{where}"


def parse_speaker(text: str) -> Speaker:
    """What one ``--speaker`` says.

    Raises:
        InputError: it cannot be understood.
    """
    parts = re.split(rf",(?=(?:{'|'.join(_KEYS)})=)", text)
    found: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals or key not in _KEYS or key in found or not value:
            raise InputError(f"--speaker: {text!r} cannot be read at {part!r}; {EXPECTED} expected.")
        found[key] = value
    audio = found.get("audio")
    speech = None if audio is None or audio.lower() == SILENT else Path(audio)
    region = found.get("region")
    return Speaker(speech, None if region is None else parse_region(region, "--speaker"), name=found.get("name", ""))


def speaker_text(speaker: Speaker) -> str:
    """What ``parse_speaker`` reads as this speaker again, turns and channels left out."""
    parts = [f"audio={SILENT if speaker.speech is None else speaker.speech}"]
    parts += [f"region={speaker.region}"] if speaker.region is not None else []
    return ",".join([*parts, *([f"name={speaker.name}"] if speaker.name else [])])


def parse_region(text: str, what: str) -> Region:
    """A region as flags write it.

    Args:
        what: to be named in messages.
    """
    kind, colon, value = text.partition(":")
    if text in SIDES:
        return Half(text)
    if kind == "mask" and value:
        return MaskFile(Path(value))
    if kind == "box":
        return box_of([number.strip() for number in value.split(",")], what)
    raise InputError(f"{what}: region {text!r} found; left, right, box:LEFT,TOP,RIGHT,BOTTOM or mask:FILE expected.")


def box_of(numbers: list, what: str, rows_first: bool = False) -> Box:
    """A box of four numbers.

    Args:
        rows_first: top, left, bottom, right, as upstream's JSON has them.
    """
    try:
        if len(numbers) != 4 or any(isinstance(number, bool) for number in numbers):
            raise ValueError
        a, b, c, d = map(float, numbers)
        box = Box(b, a, d, c) if rows_first else Box(a, b, c, d)
        if not (0 <= box.left < box.right < 1e6 and 0 <= box.top < box.bottom < 1e6):
            raise ValueError
    except (TypeError, ValueError):
        order = "top, left, bottom, right" if rows_first else "left, top, right, bottom"
        raise InputError(
            f"{what}: the box {numbers} is none; four numbers expected, {order}, in pixels of the picture, each of the "
            "later two larger."
        ) from None
    return box
