"""Whether a video that is there is the one that a job asks for: by the record that it carries, and nothing else.

Compared are the settings that decide frames, the texts, and hashes of picture, speech and weights; not the version of
the program, nor where files lie.
"""

from __future__ import annotations

import os
from enum import Enum
from functools import cache
from pathlib import Path

from ..checkpoints.locate import find_model_files
from ..errors import InputError
from ..job.container import open_container
from ..job.identity import contents_identity, weights_identity
from ..job.output import partial_path, windows_done
from ..job.record import Record, read_record
from ..settings.definition import Settings, names_with
from ..settings.roles import FRAMES, MACHINE
from .tasks import Task

_HERE = "device", "threads"  # compared only where the task names one: else they follow from the machine
_USUAL = {"device": "auto", "threads": None}


class There(Enum):
    """What lies where a task's video goes."""

    NOTHING = "nothing"
    BEGUN = "begun"
    DONE = "done"


def look(task: Task, overwrite: bool) -> There:
    """What is there of a task's video.

    Args:
        overwrite: whether another video may be replaced, which then counts as none.

    Raises:
        InputError: another video of this name is there.
    """
    path = task.path
    if partial_path(path).exists() and windows_done(path):
        return There.BEGUN
    if not os.path.lexists(path):
        return There.NOTHING
    try:
        record = read_record(path)
    except InputError:
        if overwrite:
            return There.NOTHING
        raise InputError(
            f"{path} exists and was not made here; give --overwrite to replace it, or the job another id."
        ) from None
    other = difference(record, task)
    if other and not overwrite:
        raise InputError(
            f"{path} exists and was made from something else ({other}); give --overwrite to make it anew, or the job "
            "another id."
        )
    return There.NOTHING if other else There.DONE


def difference(record: Record, task: Task) -> str:
    """The first thing in which a video is another than the one that is wanted; empty if in none."""
    wanted, job = task.settings.as_json(), task.job
    defaults = Settings().as_json()
    for name in (*names_with(FRAMES), *names_with(MACHINE)):
        unsaid = name in _HERE and wanted[name] == _USUAL[name] or name == "base_seed" and task.any_seed
        found = record.settings.get(name, defaults[name])
        if not unsaid and found != wanted[name]:
            return f"{name} was {found} and is {wanted[name]} now"
    for name, text in (("prompt", job.prompt), ("negative_prompt", job.negative_prompt)):
        if record.job.get(name) != text:
            return f"the {name.replace('_', ' ')} changed"
    if not record.contents:  # of an earlier version, which named files alone
        same = [record.job.get("reference") == str(job.reference), record.job.get("speech") == str(job.speech)]
        return "" if all(same) else "the reference or the speech has another name"
    try:
        weights = _fingerprints(tuple(find_model_files(task.settings).by_name().items()))
    except InputError:  # they are gone; the video is there all the same
        weights = None
    now = contents_identity(job, dict(weights or ()))
    names = now if weights is None else {**now, **record.contents}
    return next((f"{name} changed" for name in names if record.contents.get(name) != now.get(name)), "")


@cache
def _fingerprints(files: tuple[tuple[str, Path], ...]) -> tuple[tuple[str, str], ...]:
    """Taken once for the tasks of a run."""
    return tuple(weights_identity(dict(files)).items())


def frames_in(path: Path) -> int:
    """Frames of a finished video, as its header tells."""
    with open_container(path) as container:
        return container.streams.video[0].frames
