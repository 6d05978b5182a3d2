"""Settings as a manifest for ``infinitetalk batch``: the same video with other pictures and sounds, a line for each.

Knows nothing of graphs, and not how a manifest is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import CONTROLS, InputError
from ..settings.definition import Settings, names_with, setting_types
from ..settings.flags import NONE_WORD
from ..settings.roles import RUN, Json, json_value
from .command import flags, groups

VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v")
_NOT_IN_A_LINE = ("image", "video", "audio", "input_json", "save_file", "device")  # said otherwise, or of the batch
_UNSAFE = re.compile(f'[{CONTROLS}\\\\/:*?"<>|]+')


def manifest(settings: Settings, pictures: Sequence[Path], sounds: Sequence[Path], full: bool = False) -> str:
    """The lines of a manifest, to be saved in the folder from which the files are named.

    Args:
        pictures: or videos; none: the settings' own.
        sounds: none: the settings' own. One goes with all pictures, and one picture with all sounds.
        full: every setting that has a value.

    Raises:
        InputError: a file is not there, or there are neither as many sounds as pictures nor one of them.
    """
    given = {"image": settings.image, "video": settings.video, "audio": settings.audio}
    for path in (*pictures, *sounds):
        if not path.is_file():
            raise InputError(f"{path} is not a file; give pictures and sounds that are there.")
    references = list(pictures) or [each for each in (settings.image, settings.video) if each is not None]
    speeches = list(sounds) or [each for each in (given["audio"],) if each is not None]
    count = max(len(references), len(speeches))
    if len(references) not in (1, count) or len(speeches) not in (1, count):
        raise InputError(
            f"{len(references)} pictures and {len(speeches)} sounds found; give as many sounds as pictures, or one of "
            "them."
        )
    pairs = [(references[min(n, len(references) - 1)], speeches[min(n, len(speeches) - 1)]) for n in range(count)]
    values = _values(settings, full)
    lines = []
    for id, (reference, speech) in zip(_ids(pairs), pairs, strict=True):
        kind = "video" if reference.suffix.lower() in VIDEOS else "image"
        lines.append({"id": id, kind: reference.as_posix(), "audio": speech.as_posix(), **values})
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)


def _values(settings: Settings, full: bool) -> dict[str, Json]:
    """What the command's flags would say, as JSON."""
    given = [group[0].partition("=")[0].removeprefix("--") for group in groups(flags(settings, full))]
    found: dict[str, Json] = {}
    for name in given:
        if name not in (*_NOT_IN_A_LINE, *names_with(RUN)):
            value = json_value(getattr(settings, name))
            found[name] = NONE_WORD if value is None and setting_types()[name].optional else value
    return found


def _ids(pairs: Sequence[tuple[Path, Path]]) -> Iterator[str]:
    """Names of the videos: the picture's and the sound's, as far as they differ, and a number where that is not all."""
    several = [len({pair[side] for pair in pairs}) > 1 for side in (0, 1)]
    seen: set[str] = set()
    for reference, speech in pairs:
        stems = [path.stem for path, differs in zip((reference, speech), several, strict=True) if differs]
        stem = _UNSAFE.sub("_", "_".join(stems or [reference.stem])).strip(" .-") or "video"
        name, number = stem, 1
        while name.casefold() in seen:
            number += 1
            name = f"{stem}_{number}"
        seen.add(name.casefold())
        yield name
