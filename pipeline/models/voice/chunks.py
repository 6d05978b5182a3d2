"""Chunks of a sound that follow each other, cut out of its blocks, and what they were added up again.

For networks that hear some seconds at a time: nothing here holds more of a sound than a chunk and what overlaps.
Knows no network.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ...media.audio import Audio


def pairs(audio: Audio) -> Iterator[np.ndarray]:
    """Blocks of two channels: of one channel twice the same, of more than two the mean of the first two, twice."""
    for block in audio.blocks():
        yield block if len(block) == 2 else np.repeat(block[:2].mean(axis=0, keepdims=True), 2, axis=0)


@dataclass(frozen=True)
class Span:
    """Samples [start, stop) of a sound; ``stop`` may lie behind its end."""

    start: int
    stop: int


def cut(blocks: Iterable[torch.Tensor], spans: Iterable[Span]) -> Iterator[torch.Tensor]:
    """The chunks [channels, n] of these spans, which start one after the other; the last ones end with the sound."""
    coming = iter(blocks)
    held = next(coming)
    origin = 0  # of ``held`` in the sound
    for span in spans:
        held, origin = held[:, span.start - origin :], span.start
        parts, size = [held], held.shape[1]
        while size < span.stop - span.start and (block := next(coming, None)) is not None:
            parts.append(block)
            size += block.shape[1]
        held = torch.cat(parts, dim=1)
        yield held[:, : span.stop - span.start]


def added(pieces: Iterable[tuple[Span, torch.Tensor]]) -> Iterator[torch.Tensor]:
    """The sum of pieces [channels, n] that begin one after the other, as far as later ones cannot change it."""
    held: torch.Tensor | None = None
    origin = 0
    for span, piece in pieces:
        if held is None:
            held, origin = piece.clone(), span.start
            continue
        done = span.start - origin
        yield held[:, :done]
        held, origin = held[:, done:], span.start
        longer = piece.shape[1] - held.shape[1]
        if longer > 0:
            held = torch.nn.functional.pad(held, (0, longer))
        held[:, : piece.shape[1]] += piece
    if held is not None:
        yield held
