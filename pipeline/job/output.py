"""Where a video goes, and what lies beside it while it is made. Looks whether files exist, not into them."""

from __future__ import annotations

import re
import tempfile
from datetime import datetime
from pathlib import Path

from ..errors import InputError
from ..settings.definition import Settings
from .job import Job


def partial_path(path: Path) -> Path:
    """Where the video ``path`` is while it is made."""
    return path.with_name(f"{path.stem}.partial.mp4")


def state_path(path: Path) -> Path:
    """Where the state of the run that makes the video ``path`` is, with which it can go on."""
    return partial_path(path).with_suffix(".state")


def output_path(settings: Settings, job: Job, now: datetime) -> Path:
    """Where the video goes: ``--save_file`` with .mp4, or a name of size, prompt and time in the current folder.

    Raises:
        InputError: nothing can be written there, the file exists and ``--overwrite`` is not given, or it is
            one that the video is made from.
    """
    if settings.save_file == Path():
        raise InputError("--save_file: it is empty; give the name of the video, or leave it out.")
    if settings.save_file is None:
        words = re.sub(r"[^\w-]+", "_", job.prompt)[:50].strip("_")
        path = Path("_".join(filter(None, (settings.task, settings.size, words, f"{now:%Y%m%d_%H%M%S}"))) + ".mp4")
    elif settings.save_file.suffix.lower() == ".mp4":
        path = settings.save_file
    else:
        path = settings.save_file.with_name(settings.save_file.name + ".mp4")
    check_output(path, settings.overwrite or settings.resume, job.files())
    return path


def path_to_write(settings: Settings) -> Path:
    """``--save_file``, where it has to be there.

    Raises:
        InputError: it is not.
    """
    if settings.save_file is None:
        raise InputError("--save_file: it is left out; give the name of the video.")
    return settings.save_file


def check_output(path: Path, overwrite: bool, sources: tuple[Path, ...]) -> None:
    """See that a file can be written to ``path``, before hours are spent on it. Leaves nothing behind.

    Args:
        sources: what it is made from.

    Raises:
        InputError: it is a folder or one of the sources, it exists, or its folder cannot be written.
    """
    folder = path.absolute().parent
    try:
        if path.is_dir():
            raise InputError(f"--save_file: {path} is a folder; give the name of a file in it.")
        if path.exists() and any(source.exists() and path.samefile(source) for source in sources):
            raise InputError(f"--save_file: {path} is what it is made from; give another name.")
        if path.exists() and not overwrite:
            raise InputError(f"--save_file: {path} exists; give --overwrite to replace it, or another name.")
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--save_file: cannot write into {folder} ({error.strerror}); give another name.") from error


def check_unfinished(path: Path, settings: Settings) -> None:
    """See that the video ``path``, finished or not, is to be gone on with or replaced, or that there is none.

    Raises:
        InputError: it is finished and ``resume`` has nothing to go on with, or there is one and the settings say
            neither ``resume`` nor ``overwrite``.
    """
    if settings.resume and state_path(path).exists():
        if not partial_path(path).exists():
            raise InputError(f"{partial_path(path)} is gone, so the run cannot go on. Start again with --overwrite.")
        return
    if settings.overwrite:
        return
    if path.exists():
        if settings.resume:
            raise InputError(f"--resume: {path} is finished; give --overwrite to make it again, or another name.")
        raise InputError(f"{path} exists; give --overwrite to replace it, or another name.")
    if state_path(path).exists():
        raise InputError(
            f"{partial_path(path)} is an unfinished video: go on with --resume, or start again with --overwrite."
        )
