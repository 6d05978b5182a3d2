"""One video by ComfyUI's own model: what it is made from, and how it is made, gone on with, or found finished.

Knows no node and no widget but by the names that messages call them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...pipeline.errors import InputError
from ...pipeline.job.identity import content_hash
from ...pipeline.media.audio import FPS
from ...pipeline.media.reference import Footage, Reference, open_reference
from ...pipeline.planning.windows import WindowSpan, window_plan
from ...pipeline.run.progress import Progress, RunStarted
from ...pipeline.run.recording import Run, Target, record
from ...pipeline.run.resume import check_state, load_state
from ...pipeline.run.windows import NO_WINDOWS, Before, Window, in_turn
from ...pipeline.settings.definition import Settings
from ...pipeline.settings.roles import Json
from . import host
from .core_windows import CoreWindows, Linked
from .linked import reference_of

if TYPE_CHECKING:
    from comfy_api.latest import Input


class Picture:
    """A picture of the speaker; of a batch the first."""

    def __init__(self, image: torch.Tensor) -> None:
        self._image = image[:1]

    def at(self, seconds: float) -> tuple[int, torch.Tensor]:
        return 0, self._image

    def digest(self) -> str:
        return Footage(self._image).digest()


class Screened:
    """A video of the speaker, by time."""

    def __init__(self, reference: Reference, digest: str) -> None:
        self._reference = reference
        self._digest = digest

    def at(self, seconds: float) -> tuple[int, torch.Tensor]:
        index = self._reference.frame_index(seconds)
        pixels = np.asarray(self._reference.frame(index), dtype=np.float32) / 255
        return index, torch.from_numpy(pixels)[None]

    def digest(self) -> str:
        return self._digest


def footage_of(image: torch.Tensor | None, video: Input.Video | None) -> Picture | Screened:
    """What the speaker looks like.

    Raises:
        InputError: neither or both are linked, or the video cannot be read.
    """
    source = reference_of(image, video)
    return Screened(open_reference(source), content_hash(source)) if image is None else Picture(image)


def settings_of(widgets: dict[str, Any]) -> Settings:
    """How windows follow each other and are finished.

    Raises:
        InputError: windows cannot be of that length.
    """
    length, motion = widgets["length"], widgets["motion_frame_count"]
    if (length - 1) % 4:
        raise InputError(f"length: {length} found, 4n+1 expected, for example {length - (length - 1) % 4}.")
    if motion >= length:
        raise InputError(f"motion_frame_count: {motion} found, fewer than length ({length}) expected; 9 is usual.")
    return Settings(
        frame_num=length,
        motion_frame=motion,
        max_frame_num=widgets["max_frame_num"] or None,
        color_correction_strength=widgets["color_correction_strength"],
        seam_frames=widgets["seam_frames"],
    )


@dataclass(frozen=True)
class CoreVideo:
    """What makes a video.

    Attributes:
        size: height and width in pixels.
        identity: everything that decides its frames, by name.
    """

    linked: Linked
    footage: Picture | Screened
    settings: Settings
    size: tuple[int, int]
    identity: dict[str, Json]


def digest_of(identity: dict[str, Json]) -> str:
    """What tells one video from all others."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]


def make_video(video: CoreVideo, target: Target, tell: host.HostProgress) -> None:
    """Make a video, go on with it where it was interrupted, or find it finished."""
    path, s = target.path, video.settings
    if path.exists():
        tell.note(f"{path.name} is finished already")
        return
    spans = window_plan(video.linked.speech.frames, s.frame_num, s.motion_frame, s.max_frame_num)
    state, anew = None, False
    try:
        state = load_state(path)
        if state is not None:
            check_state(path, state, spans, (3, s.motion_frame, *video.size))
    except InputError as error:
        logging.warning("InfiniteTalk: %s", error)
        tell.note("the unfinished video cannot be gone on with; it is made anew")
        state, anew = None, True
    before = NO_WINDOWS if state is None else Before(state.windows, state.motion)
    run = Run(video.identity, before.windows, seed=0, written=None if state is None else state.written)
    record(replace(target, overwrite=anew), run, partial(_windows, video, spans, before), tell)


def _windows(
    video: CoreVideo, spans: tuple[WindowSpan, ...], before: Before, tell: Progress
) -> Iterator[tuple[Window, Before]]:
    """The windows of a video after those that are there."""
    frames, done = (spans[count - 1].start + spans[count - 1].keep_to for count in (len(spans), before.windows))
    done *= before.windows > 0
    tell(RunStarted(len(spans), frames, frames / FPS, before.windows, done / FPS))
    made = CoreWindows(video.linked, video.footage, video.settings, len(spans), video.size, tell)
    yield from in_turn(made.window, spans, before.motion, before.windows)
