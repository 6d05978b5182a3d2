"""Where a video goes, and what lies beside it while it is made: which files are ours, and which are in the way.

Of the files beside it only the beginning of a state is read, to tell ours from those of others.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from datetime import datetime
from pathlib import Path

from ..errors import InputError
from ..facts.json_text import read_json
from ..settings.definition import Settings
from ..settings.roles import Json
from .job import Job

_STATE_BEGINS = b'{"__metadata__":{"state":'  # after eight bytes of length: what this program writes, and no other
_LONGEST_NOTES = 1 << 24
_TAKEN = (".partial", ".tmp")  # ends of names under which unfinished videos lie


def partial_path(path: Path) -> Path:
    """Where the video ``path`` is while it is made."""
    return path.with_name(f"{path.stem}.partial.mp4")


def state_path(path: Path) -> Path:
    """Where the state of the run that makes the video ``path`` is, with which it can go on."""
    return partial_path(path).with_suffix(".state")


def state_in_writing_path(path: Path) -> Path:
    """Where the next state of the video ``path`` is while it is written."""
    return partial_path(path).with_suffix(".state.tmp")


def is_own_state(file: Path) -> bool:
    """Whether a file is a state, whole or torn, that this program wrote. An empty one is, since nothing is lost."""
    if not stat.S_ISREG(file.lstat().st_mode):
        return False
    with file.open("rb") as opened:
        begin = opened.read(8 + len(_STATE_BEGINS))[8:]
    return begin == _STATE_BEGINS[: len(begin)]


def remove_own_state(file: Path) -> None:
    """Remove a state that an interrupted run left; a file of somebody else's stays, and is in the way."""
    if os.path.lexists(file) and is_own_state(file):
        file.unlink()


def windows_done(path: Path) -> int | None:
    """How many windows of the video ``path`` are there, by its state; None where there is none, or it is damaged."""
    notes = state_notes(state_path(path))
    found = None if notes is None else notes.get("windows")
    return found if type(found) is int else None


def state_notes(state: Path) -> dict[str, Json] | None:
    """What a state says of its run: ``windows``, ``identity``, ``written``. None: there is none, or it is damaged."""
    try:
        with state.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = read_json(file.read(min(length, _LONGEST_NOTES)))
        notes = read_json(header["__metadata__"]["state"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return notes if isinstance(notes, dict) else None


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
    if path.stem.lower().endswith(_TAKEN):
        raise InputError(
            f"--save_file: {path} is a name of unfinished videos; give one without {Path(path.stem).suffix}."
        )
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
    folder = path.parent
    try:
        folder = path.absolute().parent  # which fails where the current folder was removed
        if path.is_dir():
            raise InputError(f"--save_file: {path} is a folder; give the name of a file in it.")
        if path.exists() and any(source.exists() and path.samefile(source) for source in sources):
            raise InputError(f"--save_file: {path} is what it is made from; give another name.")
        if os.path.lexists(path) and not overwrite:
            raise InputError(f"--save_file: {path} exists; give --overwrite to replace it, or another name.")
        folder = next(folder for folder in path.absolute().parents if folder.exists())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--save_file: cannot write into {folder} ({error.strerror}); give another name.") from error


def check_beside(path: Path, sources: tuple[Path, ...]) -> None:
    """See that what lies beside the video ``path`` while it is made is ours, or not there. Touches nothing.

    Args:
        sources: what it is made from.

    Raises:
        InputError: one of the names is too long, a link, a folder, one of the sources, or a file of somebody else's.
    """
    partial, state, writing = partial_path(path), state_path(path), state_in_writing_path(path)
    for file in (partial, state, writing):
        try:
            mode = file.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise InputError(
                f"--save_file: {file.name}, which lies beside the video while it is made, cannot be written "
                f"({error.strerror}); give another name."
            ) from error
        if not stat.S_ISREG(mode):
            raise InputError(_in_the_way(file, "a symbolic link" if stat.S_ISLNK(mode) else "no file"))
        if any(source.exists() and file.samefile(source) for source in sources):
            raise InputError(
                f"--save_file: {file} is what the video is made from, and where {path.name} is while it is made; "
                "give another name."
            )
        if file != partial and not is_own_state(file):
            raise InputError(_in_the_way(file, "not a state that was written here"))
    if partial.exists() and not state.exists():
        raise InputError(_in_the_way(partial, f"not an unfinished video that was made here ({state.name} is missing)"))


def _in_the_way(file: Path, found: str) -> str:
    return f"--save_file: {file} is {found}; move it away, or give another name."


def check_unfinished(path: Path, settings: Settings, sources: tuple[Path, ...] = ()) -> None:
    """See that the video ``path``, finished or not, is to be gone on with or replaced, or that there is none.

    Args:
        sources: what it is made from.

    Raises:
        InputError: it is finished and ``resume`` has nothing to go on with, there is one and the settings say
            neither ``resume`` nor ``overwrite``, or files of others lie where it is to be made (``check_beside``).
    """
    check_beside(path, sources)
    if os.path.lexists(path) and not partial_path(path).exists() and not settings.dry_run:
        remove_own_state(state_path(path))  # left where a crash came between the removal of the two files
    begun = state_path(path).exists() and windows_done(path) != 0
    made = partial_path(path).exists()
    if settings.resume and begun and (made or not os.path.lexists(path)):
        if not made:
            raise InputError(f"{partial_path(path)} is gone, so the run cannot go on. Start again with --overwrite.")
        return
    if settings.overwrite:
        return
    if os.path.lexists(path):
        if settings.resume:
            raise InputError(f"--resume: {path} is finished; give --overwrite to make it again, or another name.")
        raise InputError(f"{path} exists; give --overwrite to replace it, or another name.")
    if begun and made:
        raise InputError(
            f"{partial_path(path)} is an unfinished video: go on with --resume, or start again with --overwrite."
        )
