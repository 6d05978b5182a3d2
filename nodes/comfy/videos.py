"""Where a sampler's video lies: names that count, and the video of the same run by what it carries, whatever its name.

A finished video has the run's digest among its tags, an unfinished one its identity in the state beside it. Knows not
how a video is made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import av

from ...pipeline.errors import InputError
from ...pipeline.job.container import open_container, tag
from ...pipeline.job.output import is_own_state, partial_path, state_notes, state_path
from ...pipeline.media.publishing import check_not_written
from ...pipeline.settings.roles import Json

RUN_TAG = "infinitetalk_run"  # a finished video's tag: the digest of its run
_STATE = ".partial.state"
_TELLING = 64  # bytes; a shorter state does not say whose it is


@dataclass(frozen=True)
class Unfinished:
    """A video that an interrupted run left.

    Attributes:
        path: that it will have when it is finished.
        windows: how many of it are there; None where its state is damaged.
        seconds: of video that are there.
        changed: when it last grew, in seconds since 1970.
    """

    path: Path
    windows: int | None
    seconds: float
    bytes: int
    changed: float

    def name(self, root: Path) -> str:
        """Of its file, as it is under ``root``."""
        return partial_path(self.path).relative_to(root).as_posix()

    def line(self, root: Path) -> str:
        """It in words."""
        when = datetime.fromtimestamp(self.changed).strftime("%Y-%m-%d %H:%M")
        return f"{self.name(root)} ({self.seconds:.1f} s, {self.bytes / 1e6:.1f} MB, {when})"


def digest_of(identity: Mapping[str, Json]) -> str:
    """What tells one run from all others."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def finished(stem: Path, digest: str) -> Path | None:
    """The finished video of a run among those whose names begin like ``stem``.

    Earlier versions put the digest into the name.
    """
    earlier = stem.with_name(f"{stem.name}_{digest}.mp4")
    if earlier.is_file():
        return earlier
    named = stem.parent.glob(f"{_escaped(stem.name)}_*_.mp4")
    return next((path for path in sorted(named, reverse=True) if _run_of(path) == digest), None)


def begun(root: Path, digest: str) -> Path | None:
    """What the unfinished video of a run anywhere under ``root`` will be called."""
    for path in _states(root):
        notes = state_notes(state_path(path))
        identity = None if notes is None else notes.get("identity")
        if isinstance(identity, dict) and digest_of(identity) == digest:
            return path
    return None


def unfinished(root: Path) -> list[Unfinished]:
    """All unfinished videos under ``root``, the newest first."""
    return sorted(map(_looked_at, _states(root)), key=lambda each: -each.changed)


def clear(root: Path, names: list[str]) -> tuple[int, list[str]]:
    """Remove unfinished videos and their states.

    Args:
        names: of the unfinished videos' files under ``root``; others are left alone.

    Returns:
        How many are gone, and a sentence for each that is not.
    """
    gone, kept = 0, []
    for path in list(_states(root)):
        partial = partial_path(path)
        name = partial.relative_to(root).as_posix()
        if name not in names:
            continue
        try:
            check_not_written(partial, path)
            partial.unlink(missing_ok=True)
            state_path(path).unlink()
            gone += 1
        except (OSError, InputError) as error:
            reason = getattr(error, "strerror", None) or "it is being made"
            kept.append(f"{name} stays: {reason}.")
    return gone, kept


def _states(root: Path) -> Iterator[Path]:
    """The paths that the videos of all states under ``root`` will have."""
    for state in sorted(root.rglob(f"*{_STATE}")):
        if not state.is_symlink() and is_own_state(state) and state.stat().st_size > _TELLING:
            yield state.with_name(state.name.removesuffix(_STATE) + ".mp4")


def _looked_at(path: Path) -> Unfinished:
    from ...pipeline.media.audio import FPS

    state, partial = state_path(path), partial_path(path)
    notes = state_notes(state) or {}
    windows, written = notes.get("windows"), notes.get("written")
    frames = written.get("frames") if isinstance(written, dict) else None
    files = [file.stat() for file in (state, partial) if file.exists()]
    return Unfinished(
        path,
        windows if isinstance(windows, int) else None,
        frames / FPS if isinstance(frames, int) else 0.0,
        sum(file.st_size for file in files),
        max((file.st_mtime for file in files), default=0.0),
    )


_runs: dict[Path, tuple[int, str | None]] = {}  # what videos carry, until they change


def _run_of(path: Path) -> str | None:
    """The digest of the run that made a video, if it says so."""
    changed = path.stat().st_mtime_ns
    if path not in _runs or _runs[path][0] != changed:
        try:
            with open_container(path) as video:
                _runs[path] = changed, tag(video, RUN_TAG)
        except (av.FFmpegError, ValueError, OSError):
            _runs[path] = changed, None
    return _runs[path][1]


def _escaped(name: str) -> str:
    """A name in a pattern of files."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)
