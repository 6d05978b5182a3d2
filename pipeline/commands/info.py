"""What made a video: the settings that it carries, read back and told in lines.

Reads what ``media.writer`` put into the file; the file may come from another version, with other
settings, so nothing is taken for granted but what is found.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import av

from ..errors import InputError
from ..media.writer import METADATA_KEY
from ..settings.definition import NEGATIVE_PROMPT, Settings
from ..settings.validation import resolve

# settings that the job says, or that say nothing about the video
_UNTOLD = {
    *("image", "video", "audio", "input_json", "prompt", "negative_prompt"),
    *("save_file", "overwrite", "resume", "quiet", "dry_run"),
}


@dataclass(frozen=True)
class Record:
    """What a video carries: the version that made it, its settings and its job by name, as JSON has them."""

    version: str
    settings: dict[str, object]
    job: dict[str, object]


def read_record(path: Path) -> Record:
    """The settings in a video's metadata.

    Raises:
        InputError: there is no such file, it is no video, or it was not made here.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {found}; give the name of a video.")
    try:
        # the prefix keeps FFmpeg off the network, whatever the file is called
        with av.open(f"file:{path}", container_options={"protocol_whitelist": "file"}) as container:
            text = container.metadata.get(METADATA_KEY)
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} is not a video that can be read ({reason}); give a finished one.") from error
    if text is None:
        raise InputError(
            f"{path} carries no settings: it was not made here, is an unfinished .partial.mp4, "
            "or another program has saved it again."
        )
    try:
        entries = json.loads(text)
        return Record(str(entries["version"]), dict(entries["settings"]), dict(entries["job"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the settings in {path} are damaged; another program may have changed them.") from error


def describe(record: Record, full: bool = False) -> str:
    """The record as lines of text: the job, then settings that are not the defaults, or in ``full`` all of them."""
    defaults = resolve(Settings()).as_json()
    lines = [f"version: {record.version}"]
    for name, value in record.job.items():
        if full or (name, value) != ("negative_prompt", NEGATIVE_PROMPT):
            lines.append(f"{name}: {_text(value)}")
    for name, value in record.settings.items():
        if full or (name not in _UNTOLD and value != defaults.get(name)):
            lines.append(f"--{name} {_text(value)}")
    return "\n".join(lines)


def _text(value: object) -> str:
    if isinstance(value, list):
        return " ".join(_text(single) for single in value)
    return value if isinstance(value, str) else json.dumps(value)
