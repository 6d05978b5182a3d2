"""How a video is cut into windows, and how many tokens one has. Arithmetic only.

Windows follow upstream (wan/multitalk.py): the first is ``frame_num`` frames, each next one starts
``frame_num - motion_frame`` later and repeats the last ``motion_frame`` frames before it; the last is the
first that reaches the end. Knows no files, no models and no device.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..media.audio import FPS

LATENT_FRAMES = 4  # video frames of a latent frame, but for the first
TOKEN_SIDE = 16  # pixels: the VAE's 8 times the transformer's patch of 2


@dataclass(frozen=True)
class WindowSpan:
    """One window. ``start`` and ``stop`` count video frames; the speech of [start, stop) drives it.

    Frames [keep_from, keep_to) of the window itself are new and go into the video, where the first
    of them is frame ``start + keep_from``.
    """

    index: int
    start: int
    stop: int
    keep_from: int
    keep_to: int


def window_plan(
    num_frames: int, frame_num: int, motion_frame: int, max_frame_num: int | None = None, whole: bool = False
) -> tuple[WindowSpan, ...]:
    """The windows of a video.

    Args:
        num_frames: frames that the speech lasts; the video is cut to them. May be fewer than a window.
        frame_num: frames of a window.
        motion_frame: frames that a window shares with the one before, 1 to frame_num - 1.
        max_frame_num: longest video, or None.
        whole: keep all frames of the last window too.

    Raises:
        InputError: the speech is shorter than one frame.
    """
    if num_frames < 1:
        raise InputError(f"The speech is shorter than one video frame ({1000 // FPS} ms); give a longer sound file.")
    total = num_frames if max_frame_num is None else min(num_frames, max_frame_num)
    spans: list[WindowSpan] = []
    start, keep_from = 0, 0
    while not spans or spans[-1].stop < total:
        stop = start + frame_num
        spans.append(WindowSpan(len(spans), start, stop, keep_from, (stop if whole else min(stop, total)) - start))
        start, keep_from = stop - motion_frame, motion_frame
    return tuple(spans)


def latent_frames(frame_num: int) -> int:
    """Latent frames of a window of so many video frames."""
    return (frame_num - 1) // LATENT_FRAMES + 1


def tokens_per_window(frame_num: int, height: int, width: int) -> int:
    """Tokens that the transformer sees for one window of this size (pixels)."""
    return latent_frames(frame_num) * (height // TOKEN_SIDE) * (width // TOKEN_SIDE)
