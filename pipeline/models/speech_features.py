"""Features of speech by video frame, wherever they come from: what each window hears, and what it hears past the end.

Knows neither sound nor the network that makes features of it; that is ``speech_encoder``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..media.audio import FPS

WINDOW = 5
CACHED_CHUNKS = 3


class SpeechFeatures:
    """Features of a clip frame by frame, encoded where they are asked for; then of silence."""

    def __init__(
        self,
        num_frames: int,
        stored: int,
        chunk_frames: int,
        chunk: Callable[[int], Tensor],
        silence: Callable[[], Tensor],
        repeats_first: bool = False,
    ) -> None:
        self.num_frames = num_frames
        self._stored = stored
        self._chunk_frames = chunk_frames
        self._chunk = functools.lru_cache(maxsize=CACHED_CHUNKS)(chunk)
        self._silence = silence
        self._repeats_first = repeats_first

    def windows(self, start: int, stop: int) -> Tensor:
        """What the video frames ``start`` to ``stop - 1`` hear: their own features and two frames on either side.

        Frames before the first repeat it; frames past the end are silence, or, for ComfyUI's own nodes, the first frame
        if the end is among these, and else the last.

        Returns:
            float32 [stop - start, 5, layers, channels] on the CPU.
        """
        reach = WINDOW // 2
        first = max(start - reach, 0)
        frames = torch.stack([self._frame(self._heard(index, stop)) for index in range(first, stop + reach)])
        rows = torch.arange(start, stop)[:, None] + torch.arange(-reach, reach + 1)
        return frames[(rows - first).clamp(min=0)]

    def holding_last(self) -> SpeechFeatures:
        """The same, with its last frame instead of silence past its end."""
        last = self._stored - 1
        return SpeechFeatures(
            self.num_frames, self._stored, self._chunk_frames, self._chunk, lambda: self._frame(last)[None]
        )

    def with_silence(self, frames: Tensor) -> SpeechFeatures:
        """The same, with these features [n, layers, channels] of silence."""
        return SpeechFeatures(self.num_frames, self._stored, self._chunk_frames, self._chunk, lambda: frames)

    def ending(self, stop: int) -> SpeechFeatures:
        """The same, with the end of its silence, where windows end at frame ``stop``.

        ComfyUI-WanVideoWrapper takes the last rows, one more than such a window hears (nodes_sampler.py).
        """
        missing = stop - self._stored + 3
        return SpeechFeatures(
            self.num_frames, self._stored, self._chunk_frames, self._chunk, lambda: self._silence()[-missing:]
        )

    def _heard(self, index: int, stop: int) -> int:
        if not self._repeats_first or index < self._stored:
            return index
        return 0 if stop > self._stored else self._stored - 1

    def _frame(self, index: int) -> Tensor:
        if index < self._stored:
            chunk, row = divmod(index, self._chunk_frames)
            return self._chunk(chunk)[row]
        silence = self._silence()
        return silence[min(index - self._stored, len(silence) - 1)]


def features_from_tensor(
    frames: Tensor, silence: Tensor | None, num_frames: int | None = None, repeats_first: bool = False
) -> SpeechFeatures:
    """Features that exist already.

    Args:
        frames: [n, layers, channels].
        silence: [m, layers, channels], used after the last of ``frames`` (its own last one repeats);
            None repeats the last of ``frames``.
        repeats_first: see ``SpeechFeatures.windows``.
        num_frames: length of the clip where ``frames`` goes on beyond it; default n.
    """
    frames = frames.to("cpu", torch.float32)
    tail = frames[-1:] if silence is None else silence.to("cpu", torch.float32)
    length = len(frames)
    count = length if num_frames is None else num_frames
    return SpeechFeatures(count, length, length, lambda _: frames, lambda: tail, repeats_first)


def late_count(states: int) -> int:
    """Video frames of so many states of wav2vec2, as ComfyUI counts them: as a number with a fraction, rounded down."""
    return max(int(states / (2.0 * FPS) * FPS), 1)


def late_frames(states: Tensor) -> Tensor:
    """States behind each layer, 50 a second, as features of video frames, as ComfyUI's own nodes bring them to that.

    Args:
        states: float32 [n, layers, channels].

    Returns:
        float32 [late_count(n), layers, channels].
    """
    size = late_count(len(states))
    frames = F.interpolate(states.permute(1, 2, 0), size=size, mode="linear", align_corners=True)
    return frames.permute(2, 0, 1).contiguous()
