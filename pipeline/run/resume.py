"""The state of an unfinished run: enough to go on after the last finished window, bit for bit.

It lies beside the partial video as ``NAME.partial.state`` and is replaced as a whole after every
window, once that window's packets are on the disk. It holds what the run is made of (to refuse a
resume that would not be the same video), how much of the partial video counts, and the raw motion
frames. Knows nothing about how windows are made.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..errors import InputError
from ..job.output import check_unfinished, partial_path, state_path
from ..media.writer import Written
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
    """

    identity: dict[str, Json]
    windows: int
    written: Written
    motion: torch.Tensor


def save_state(path: Path, state: RunState) -> None:
    """Replace the state of the video ``path``; a crash leaves the old one or the new one."""
    notes = {"identity": state.identity, "windows": state.windows, "written": asdict(state.written)}
    target = state_path(path)
    temporary = target.with_suffix(".state.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(save({"motion": state.motion.cpu().contiguous()}, {"state": json.dumps(notes)}))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"cannot write {target} ({error.strerror}): free some space, then go on with --resume."
        ) from error


def load_state(path: Path) -> RunState | None:
    """The state of the unfinished video ``path``, or None if there is none.

    Raises:
        InputError: there is one, but it is damaged.
    """
    target = state_path(path)
    if not target.exists():
        return None
    try:
        with safe_open(target, framework="pt") as file:
            notes = json.loads(file.metadata()["state"])
            motion = file.get_tensor("motion").clone()  # off the file, and aligned like a fresh one
            if not motion.isfinite().all():
                raise ValueError("motion frames that are not finite")
        return RunState(notes["identity"], notes["windows"], Written(**notes["written"]), motion)
    except PermissionError:
        raise
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{target} is damaged, so the run cannot go on where it stopped; {partial_path(path)} still plays. "
            "Start again with --overwrite."
        ) from error


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
    state_path(path).unlink(missing_ok=True)


def unfinished(path: Path, settings: Settings) -> RunState | None:
    """The state to go on from, if the settings say so and there is one.

    Raises:
        InputError: see ``check_unfinished``; or the state is damaged.
    """
    check_unfinished(path, settings)
    return load_state(path) if settings.resume else None
