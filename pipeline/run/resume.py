"""The state of an unfinished run: enough to go on after the last finished window, bit for bit.

It lies beside the partial video as ``NAME.partial.state`` and is replaced as a whole after every
window, once that window's packets are on the disk. It holds what the run is made of (to refuse a
resume that would not be the same video), how much of the partial video counts, and the raw motion
frames. Knows nothing about how windows are made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import InputError
from ..facts.json_text import read_json
from ..job.output import (
    check_unfinished,
    is_own_state,
    partial_path,
    remove_own_state,
    state_in_writing_path,
    state_path,
    windows_done,
)
from ..media.publishing import publish
from ..media.writer import Written
from ..planning.windows import WindowSpan
from ..sampling.noise import NO_STATE
from ..settings.definition import Settings
from ..settings.roles import Json


@dataclass(frozen=True)
class RunState:
    """A run after some of its windows.

    Attributes:
        identity: what decides every frame, by name (``run_identity``).
        windows: how many are finished.
        written: what the partial video holds of them.
        motion: the frames that the next window starts from, [3, n, H, W] float32.
        noise: what its noise follows from, uint8 [n]; empty where that is its number.
    """

    identity: dict[str, Json]
    windows: int
    written: Written
    motion: torch.Tensor
    noise: torch.Tensor = NO_STATE


def begin_state(path: Path, identity: dict[str, Json], anew: bool = False) -> None:
    """Say that the video ``path`` is about to be made: from here on its partial file is ours.

    Args:
        anew: whether an earlier run's state is replaced. Else it stays: what it tells of is kept until the first
            window replaces it.

    Raises:
        InputError: nothing can be written there.
    """
    if not state_path(path).exists() or (anew and windows_done(path) != 0):
        save_state(path, RunState(identity, 0, Written(), torch.empty(3, 0, 0, 0)))


def save_state(path: Path, state: RunState) -> None:
    """Replace the state of the video ``path``; a crash leaves the old one or the new one.

    Raises:
        InputError: it cannot be written, or there is a file of somebody else's.
    """
    tensors = {"motion": state.motion.cpu().contiguous()}
    if state.noise.numel():
        tensors["noise"] = state.noise.cpu()
    notes: dict[str, Json] = {"identity": state.identity, "windows": state.windows, "written": asdict(state.written)}
    notes = {**notes, "checksum": _checksum(notes, tensors)}
    target, temporary = state_path(path), state_in_writing_path(path)
    made = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_own_state(temporary)
        with temporary.open("xb") as file:
            made = True
            file.write(save(tensors, {"state": json.dumps(notes)}))
            file.flush()
            os.fsync(file.fileno())
        _publish_state(temporary, target)
    except BaseException as error:
        if made:
            temporary.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        advice = ", then go on with --resume" if state.windows else " or give another --save_file"
        raise InputError(f"cannot write {target} ({error.strerror}): free some space{advice}.") from error


def _publish_state(temporary: Path, target: Path) -> None:
    """Put the new state in the old one's place; a file of somebody else's, which has come there, stays."""
    replaced = os.path.lexists(target) and is_own_state(target)
    if not publish(temporary, target, replaced):
        raise FileExistsError(0, "another file has appeared there; move it away")


def _checksum(notes: dict[str, Json], tensors: dict[str, torch.Tensor]) -> str:
    motion = tensors["motion"]
    digest = hashlib.sha256(json.dumps([notes, str(motion.dtype), list(motion.shape)], sort_keys=True).encode())
    for tensor in tensors.values():
        digest.update(tensor.numpy().data)
    return digest.hexdigest()


def load_state(path: Path) -> RunState | None:
    """The state of the unfinished video ``path``, or None if there is none, or it has not begun.

    Raises:
        InputError: there is one, but it is damaged, or of an early version.
    """
    target = state_path(path)
    if not target.exists():
        return None
    try:
        with safe_open(target, framework="pt") as file:
            notes = read_json(file.metadata()["state"])
            names = [name for name in ("motion", "noise") if name == "motion" or name in file.keys()]
            tensors = {
                name: file.get_tensor(name).clone() for name in names
            }  # off the file, and aligned like fresh ones
            motion, noise = tensors["motion"], tensors.get("noise", NO_STATE)
            if not motion.isfinite().all():
                raise ValueError("motion frames that are not finite")
        checksum = notes.pop("checksum", None)
        if checksum is not None and checksum != _checksum(notes, tensors):
            raise ValueError("the checksum is another")
        state = RunState(notes["identity"], notes["windows"], Written(**notes["written"]), motion, noise)
        _check_types(state)
    except PermissionError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path) from error
    if checksum is None:
        raise InputError(
            f"--resume: {target} was written by an earlier version, without a checksum; {partial_path(path)} still "
            "plays. Start again with --overwrite."
        )
    return state if state.windows else None


def _damaged(path: Path) -> InputError:
    return InputError(
        f"{state_path(path)} is damaged, so the run cannot go on where it stopped; {partial_path(path)} still plays. "
        "Start again with --overwrite."
    )


def _check_types(state: RunState) -> None:
    """Raise a TypeError unless everything is what ``RunState`` says."""
    written = state.written
    counts = (state.windows, written.frames, written.bytes)
    if not all(type(number) is int and number >= 0 for number in counts):
        raise TypeError("a count is none")
    if not isinstance(state.identity, dict) or not isinstance(written.digest, str):
        raise TypeError("the identity or the digest is none")
    if state.motion.dtype != torch.float32 or state.motion.ndim != 4:
        raise TypeError("the motion frames are none")
    if state.noise.dtype != torch.uint8 or state.noise.ndim != 1:
        raise TypeError("the noise's state is none")


def check_state(path: Path, state: RunState, spans: tuple[WindowSpan, ...], motion: tuple[int, ...]) -> None:
    """See that a state goes with the plan of the run that is to continue it.

    Args:
        spans: of all windows.
        motion: shape of the frames that a window starts from.

    Raises:
        InputError: it does not.
    """
    fits = state.windows <= len(spans)
    if fits:
        last = spans[state.windows - 1]
        fits = state.written.frames == last.start + last.keep_to and tuple(state.motion.shape) == motion
    if not fits:
        raise _damaged(path)


def check_same_run(old: dict[str, Json], new: dict[str, Json]) -> None:
    """Raise an InputError that names what differs between an unfinished run and the one that is to continue it."""
    changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if not changed:
        return
    name = changed[0]
    if name.startswith("the weights") or name in ("the reference", "the speech"):
        what = f"{name} changed"
    else:
        what = f"{name} was {old.get(name)!r} and is {new.get(name)!r} now"
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    raise InputError(
        f"--resume: this is not the run that was interrupted: {what}{more}. "
        "Give the same settings and files, or start again with --overwrite."
    )


def remove_state(path: Path) -> None:
    """Remove the state of the video ``path``, whose partial file is gone: it is finished, or has not begun.

    Where that fails the video is none the worse; the next run that is given its name tries again.
    """
    if not partial_path(path).exists():
        with contextlib.suppress(OSError):
            remove_own_state(state_path(path))


def unfinished(path: Path, settings: Settings, sources: tuple[Path, ...] = ()) -> RunState | None:
    """The state to go on from, if the settings say so and there is one.

    Args:
        sources: what the video is made from.

    Raises:
        InputError: see ``check_unfinished``; or the state is damaged.
    """
    check_unfinished(path, settings, sources)
    return load_state(path) if settings.resume else None


def check_unchanged(path: Path, windows: int) -> None:
    """See, once the partial file is locked, that no other process has gone on with the run since its state was read.

    Args:
        windows: that it told of.

    Raises:
        InputError: one has.
    """
    if windows and windows_done(path) != windows:
        raise InputError(f"another process has gone on with {path} in the meantime: give the same command once more.")
