"""The windows of a video, whatever makes them: what one is, how they follow each other, and how each is finished.

A window comes as decoded frames; colours, the seam to the one before, 8 bits and the frames that the next one starts
from are the same for all. Only those frames outlive a window, so memory does not grow with the length of the video.
Knows no models, no files and no video formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch

from ..errors import InputError
from ..media.colour import lab_statistics, match_colour
from ..media.colour_transfer import colour_transfer
from ..planning.windows import WindowSpan
from ..sampling.noise import NO_STATE
from ..settings.definition import Settings
from .progress import Decoded, Progress
from .seams import even_seam


@dataclass(frozen=True)
class Window:
    """Finished frames of one window.

    Attributes:
        index: number of the window, from 0, of ``count``.
        start: number of the first of these frames in the video.
        frames: uint8 [T, H, W, 3] on the CPU: only frames that no window before has given.
    """

    index: int
    count: int
    start: int
    frames: torch.Tensor


@dataclass(frozen=True)
class Before:
    """What has been made of a video, and all that the next window needs of it.

    Attributes:
        windows: how many.
        motion: the frames that the next one starts from, [3, n, H, W] in [-1, 1]; None if there are no windows.
        noise: what the next one's noise follows from (``sampling.noise``), uint8 [n]; empty where that is its number.
    """

    windows: int = 0
    motion: torch.Tensor | None = None
    noise: torch.Tensor = NO_STATE


NO_WINDOWS = Before()


class NotFinite(InputError):
    """A window that holds NaN or infinite numbers; ``not_finite.explained`` looks for the reason.

    Attributes:
        index: of the window.
    """

    def __init__(self, index: int) -> None:
        super().__init__(f"Window {index + 1} holds numbers that are not finite (NaN or infinite), so the run stopped.")
        self.index = index


Motion: TypeAlias = (
    torch.Tensor | None
)  # the last frames before a window, [3, n, H, W] in [-1, 1]; None before the first
MakeWindow = Callable[[WindowSpan, Motion], tuple[Window, torch.Tensor]]
Windows = Callable[[Progress], Iterator[tuple[Window, Before]]]  # those of a video, told to a listener
Colours = Callable[[torch.Tensor], torch.Tensor]  # of frames [3, T, H, W] in [-1, 1]


def in_turn(
    make: MakeWindow,
    spans: tuple[WindowSpan, ...],
    motion: Motion,
    done: int = 0,
    noise: Callable[[], torch.Tensor] = lambda: NO_STATE,
) -> Iterator[tuple[Window, Before]]:
    """The windows of a video, one after the other, each with what the next one needs.

    Args:
        make: one of them.
        motion: the frames that the first of them starts from.
        done: how many there are already.
        noise: what the next one's noise follows from, after each.
    """
    for span in spans[done:]:
        window, motion = make(span, motion)
        yield window, Before(window.index + 1, motion, noise())


@dataclass(frozen=True)
class Finish:
    """How the windows of a video are finished.

    Attributes:
        count: windows of the video.
        size: height and width in pixels.
        device: where frames come from.
    """

    settings: Settings
    count: int
    size: tuple[int, int]
    device: torch.device
    progress: Progress

    def colours(self, pixels: torch.Tensor) -> Colours:
        """What pulls the colours of frames to those of a reference frame [3, H, W] in [-1, 1]."""
        strength, method = self.settings.color_correction_strength, self.settings.color_method
        if method == "lab":
            statistics = lab_statistics(pixels)
            return lambda frames: match_colour(frames, statistics, strength)
        matched = colour_transfer(method, pixels)
        return lambda frames: torch.lerp(frames, matched(frames), strength) if strength else frames

    def __call__(
        self, decoded: Iterable[torch.Tensor], span: WindowSpan, colours: Colours, motion: Motion
    ) -> tuple[Window, torch.Tensor]:
        """Correct colours, even the seam, convert, piece by piece; keep the end.

        Args:
            decoded: the window's frames in order, [3, t, H, W] in [-1, 1] each.
            motion: what the window started from.

        Returns:
            The window, and the motion frames for the next one.

        Raises:
            NotFinite: it holds NaN or infinite numbers.
        """
        s, on_card = self.settings, self.device.type == "cuda"
        shape = s.frame_num, *self.size, 3
        frames = torch.empty(shape, dtype=torch.uint8, pin_memory=on_card)  # so that nobody waits for the copies
        ends: list[torch.Tensor] = []
        finite = torch.ones((), dtype=torch.bool, device=self.device)  # looked at once, when all is there
        last, evened = None if motion is None else motion[:, -1], min(s.seam_frames, s.frame_num - s.motion_frame)
        done = 0
        for piece in even_seam(map(colours, decoded), last, s.motion_frame, evened):
            frames[done : done + piece.shape[1]].copy_(to_uint8(piece), non_blocking=True)
            finite &= piece.isfinite().all()
            done += piece.shape[1]
            if (wanted := done - s.frame_num + s.motion_frame) > 0:
                ends.append(piece[:, -wanted:])
        end = torch.cat(ends, dim=1).contiguous()
        if on_card:
            torch.cuda.current_stream(self.device).synchronize()
        if not bool(finite):
            raise NotFinite(span.index)
        new_frames = frames[span.keep_from : span.keep_to]
        self.progress(Decoded(span.index, new_frames))
        return Window(span.index, self.count, span.start + span.keep_from, new_frames), end


def to_uint8(frames: torch.Tensor) -> torch.Tensor:
    """[3, T, H, W] in [-1, 1] -> [T, H, W, 3] uint8, to the nearest level (upstream rounds down)."""
    return ((frames + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 3, 0)
