"""What a finished video carries: the version that made it, its settings and its job, written and read back.

``media.writer`` puts it into the file. The file may come from another version, with other settings, so nothing is
taken for granted but what is found. Knows nothing of how a video is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import av

from ..errors import InputError
from ..facts.json_text import read_json
from ..settings.definition import Settings, names_with
from ..settings.roles import Json, Role
from ..version import __version__
from .container import open_container, tag
from .job import Job
from .speakers import speaker_text

METADATA_KEY = "infinitetalk"  # the record, as JSON, in ``av.open(path).metadata``


@dataclass(frozen=True)
class Record:
    """What a video carries: the version that made it, its settings and its job by name, as JSON has them.

    Attributes:
        contents: hashes of the files that it was made from and by, by name; none in videos of earlier versions.
    """

    version: str
    settings: dict[str, Json]
    job: dict[str, Json]
    contents: dict[str, str] = field(default_factory=dict)


def record_of(settings: Settings, job: Job, contents: Mapping[str, str] = MappingProxyType({})) -> Record:
    """The record of a video that is made from ``job`` with these resolved settings.

    Args:
        contents: see ``job.identity.contents_identity``.
    """
    made_from: dict[str, Json] = {
        "reference": str(job.reference),
        "speech": str(job.speech or " and ".join(str(one) for one in dict.fromkeys(job.sounds()) if one is not None)),
        **_speakers(job),
        "prompt": job.prompt,
        "negative_prompt": job.negative_prompt,
    }
    of_the_run = names_with(Role.RUN)
    made_with = {name: value for name, value in settings.as_json().items() if name not in of_the_run}
    return Record(__version__, made_with, made_from, dict(contents))


def _speakers(job: Job) -> dict[str, Json]:
    if not job.speakers:
        return {}
    return {"speakers": [speaker_text(speaker) for speaker in job.speakers], "audio_type": job.arrangement}


def read_record(path: Path) -> Record:
    """The settings in a video's metadata.

    Raises:
        InputError: there is no such file, it is no video, or it was not made here.
    """
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {found}; give the name of a video.")
    try:
        with open_container(path) as container:
            text = tag(container, METADATA_KEY)
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} is not a video that can be read ({reason}); give a finished one.") from error
    if text is None:
        raise InputError(
            f"{path} carries no settings: it was not made here, is an unfinished .partial.mp4, "
            "or another program has saved it again."
        )
    try:
        entries = read_json(text)
        contents = {str(name): str(value) for name, value in dict(entries.get("contents", {})).items()}
        return Record(str(entries["version"]), dict(entries["settings"]), dict(entries["job"]), contents)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"the settings in {path} are damaged; another program may have changed them.") from error
