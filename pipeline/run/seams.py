"""Windows that meet without a jump.

A window is held to the last frames of the one before, which go through the VAE once more for it. So it goes on
from its own decoding of the last of them, which is not quite what was shown: the picture jumps a little where
windows meet, while within each window motion is continuous. What is missing is known exactly, and is added to the
first new frames, less and less. Nothing is held back for it. Knows no windows beyond this one and no files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch


def even_seam(
    pieces: Iterable[torch.Tensor], previous: torch.Tensor | None, motion_frame: int, count: int
) -> Iterator[torch.Tensor]:
    """A window's frames, the first new ones shifted towards the frame that was shown before them.

    With r what was shown less what this window has of the same frame (its last motion frame), new frame
    j = 0, 1, ... gets r * (1 - (j + 1) / (count + 1)).

    Args:
        pieces: the window's frames in order, [3, t, H, W] in [-1, 1] each, on any device; never changed in place.
        previous: the frame that was shown last before the new ones, [3, H, W] in [-1, 1] on the same device; None
            for a video's first window, which stays as it is.
        motion_frame: frames of the window that repeat the one before, at least 1.
        count: new frames that are shifted; 0 leaves everything as it is.

    Yields:
        As many pieces of the same sizes, in [-1, 1].
    """
    if previous is None or count == 0:
        yield from pieces
        return
    start, missing = 0, None
    for piece in pieces:
        stop = start + piece.shape[1]
        if start < motion_frame <= stop:
            missing = previous - piece[:, motion_frame - 1 - start]
        shifted = range(max(start, motion_frame), min(stop, motion_frame + count))
        if shifted:
            piece = piece.clone()
        for number in shifted:  # plain numbers as weights: nothing is copied to a card, nobody waits
            weight = 1 - (number - motion_frame + 1) / (count + 1)
            piece[:, number - start].add_(missing, alpha=weight).clamp_(-1, 1)
        yield piece
        start = stop
