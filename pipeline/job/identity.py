"""What decides the frames of a run, by name: settings, texts, and hashes of the files' contents.

Two runs of the same identity are the same video, bit for bit, and one may go on where the other stopped. Opens
files only to hash them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ..settings.definition import Settings, names_with
from ..settings.roles import Json, Role
from .job import Job
from .speakers import MaskFile

_EDGE = 1 << 20
_OF_CONTENTS = "the reference", "the speech", "the weights of "


class InMemory(Protocol):
    """A picture, a video or sound that is no file."""

    def digest(self) -> str:
        """Of its content."""


def weights_identity(files: Mapping[str, Path]) -> dict[str, str]:
    """What tells weights files apart, by the model's name, as they are given."""
    return {name: _fingerprint(path) for name, path in files.items() if path.exists()}


def run_identity(settings: Settings, job: Job, weights: dict[str, str], computes: dict[str, str]) -> dict[str, Json]:
    """Everything that decides the frames of a run.

    Args:
        settings: resolved.
        weights: see ``weights_identity``.
        computes: names of device, dtype, attention and kernels as they were chosen.
    """
    values = settings.as_json()
    return {
        **{name: values[name] for name in names_with(Role.FRAMES)},
        **computes,
        **contents_identity(job, weights),
        "the prompt": job.prompt,
        "the negative prompt": job.negative_prompt,
    }


def contents_identity(job: Job, weights: dict[str, str]) -> dict[str, str]:
    """What tells the files apart that a video is made from and by, by name.

    Args:
        weights: see ``weights_identity``.
    """
    return {
        "the reference": content_hash(job.reference),
        **_speech_identity(job),
        **{f"the weights of {name}": value for name, value in weights.items()},
    }


def _speech_identity(job: Job) -> dict[str, str]:
    """Of all that is said, by whom, where and when."""
    found = {} if job.speech is None else {"the speech": content_hash(job.speech)}
    for number, speaker in enumerate(job.speakers, 1):
        said = "silence" if speaker.speech is None else content_hash(speaker.speech)
        region = speaker.region
        where = content_hash(region.path) if isinstance(region, MaskFile) else region
        when = f"{speaker.turns} {speaker.channel} {speaker.track} {job.arrangement}"
        found[f"the speech of speaker {number}"] = f"{said} {where} {when}"
    return found


def contents_of(identity: Mapping[str, Json]) -> dict[str, str]:
    """``contents_identity`` out of a run's identity."""
    names = [name for name in identity if name.startswith(_OF_CONTENTS)]
    return {name: str(identity[name]) for name in names}


def content_hash(source: Path | InMemory) -> str:
    if not isinstance(source, Path):
        return source.digest()
    with source.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(path: Path) -> str:
    """Of a weights file or a folder of them: names, sizes and both ends of each file, not all its gigabytes."""
    digest = hashlib.sha256()
    files = sorted(path.glob("*.safetensors")) + sorted(path.glob("*.bin")) if path.is_dir() else [path]
    for file in files:
        size = file.stat().st_size
        digest.update(f"{file.name} {size} ".encode())
        with file.open("rb") as stream:
            digest.update(stream.read(_EDGE))
            stream.seek(max(0, size - _EDGE))
            digest.update(stream.read(_EDGE))
    return digest.hexdigest()[:16]
