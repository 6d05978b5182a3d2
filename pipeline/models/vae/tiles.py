"""Layers of the VAE run tile by tile in space, each tile through the whole video, so that little is kept at once.

A tile takes as much of its neighbours as its result depends on: counted backwards through the layers, and cut
off again layer by layer, so that the finest features carry the least of it. At the picture's own borders the
convolutions pad with zeros as they do for a whole picture; so the results are those of a whole picture, up to
the rounding of kernels that differ with the size. Knows nothing about files or latents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from .kernels import VaeKernels
from .layers import Layer, Span, Stream, run

Slices = tuple[slice, slice]  # of rows and of columns


@dataclass(frozen=True)
class Tile:
    """One tile's way through layers.

    Attributes:
        crops: what each layer takes of what the one before gave (the first: of the whole input), and what is
            left of the last one's result.
        place: where that lies in the whole result.
    """

    crops: tuple[Slices, ...]
    place: Slices


class Cards(Protocol):
    """Several cards that make the tiles of one video together."""

    def make(self, number: int) -> bool:
        """Whether this one makes the tile of that number; the first one makes the first."""

    def complete(self, results: list[torch.Tensor], tiles: Sequence[Tile]) -> list[torch.Tensor]:
        """The whole results, where each has made its tiles; ``results`` is empty on one that has none."""


def run_tiled(
    steps: Sequence[Layer],
    pieces: Sequence[torch.Tensor],
    like: torch.Tensor,
    kernels: VaeKernels,
    tiles: int,
    cards: Cards | None = None,
) -> list[torch.Tensor]:
    """The pieces ``[1, c, t, h, w]`` of a video through layers, in so many tiles.

    Args:
        like: a tensor of the dtype and device to compute in; pieces may be of another, and elsewhere.
        tiles: fewer are made where the picture has too few rows or columns.
        cards: that make them together, all of which call this with the same; None: this one makes all.

    Returns:
        The results, a piece for a piece.
    """
    results: list[torch.Tensor] = []
    height, width = pieces[0].shape[-2:]
    plan = plan_tiles(steps, height, width, tiles)
    for tile in (tile for number, tile in enumerate(plan) if cards is None or cards.make(number)):
        stream = Stream(kernels)
        before = None
        for number, piece in enumerate(pieces):
            stream.repeats = stream.repeats + 1 if piece is before else 0
            before = piece
            rows, columns = tile.crops[0]
            done = run(steps, piece[..., rows, columns].to(like), stream, tile.crops[1:])
            if number == len(results):
                results.append(_whole(steps, piece, done))
            results[number][..., tile.place[0], tile.place[1]] = done
    return results if cards is None else cards.complete(results, plan)


def _whole(steps: Sequence[Layer], piece: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """Room for the result of a whole piece, given that of a tile."""
    height, width = (_sizes(steps, size)[-1] for size in piece.shape[-2:])
    return room((*part.shape[:3], height, width), part)


def room(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Features ``[1, c, t, h, w]``, unset, in the order that layers keep them in."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d)


def plan_tiles(steps: Sequence[Layer], height: int, width: int, count: int) -> list[Tile]:
    """The tiles of a picture that comes in with this size."""
    rows, columns = grid(count, height, width)
    down = [_way(steps, height, part) for part in _parts(steps, height, rows)]
    across = [_way(steps, width, part) for part in _parts(steps, width, columns)]
    tiles = []
    for top in down:
        for left in across:
            crops = tuple((slice(*a), slice(*b)) for a, b in zip(top[0], left[0], strict=True))
            tiles.append(Tile(crops, (slice(*top[1]), slice(*left[1]))))
    return tiles


def grid(count: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of so many tiles, with the shortest borders between them."""
    shapes = [(rows, count // rows) for rows in range(1, count + 1) if count % rows == 0]
    return min(shapes, key=lambda shape: shape[0] * width + shape[1] * height)


def _sizes(steps: Sequence[Layer], size: int) -> list[int]:
    """The size that each step takes in, and the one that comes out."""
    sizes = [size]
    for step in steps:
        sizes.append(step.covers((0, sizes[-1]))[1])
    return sizes


def _parts(steps: Sequence[Layer], size: int, count: int) -> list[Span]:
    """The result's rows in so many parts, cut where the coarser of input and result has its rows."""
    out = _sizes(steps, size)[-1]
    coarse = min(size, out)
    count = min(count, coarse)
    cuts = [number * coarse // count * (out // coarse) for number in range(count + 1)]
    return list(zip(cuts, cuts[1:], strict=False))


def _way(steps: Sequence[Layer], size: int, rows: Span) -> tuple[list[Span], Span]:
    """The crops of a tile that ends as these rows, and these rows."""
    needed = [rows]
    for step, input_size in zip(reversed(steps), reversed(_sizes(steps, size)[:-1]), strict=True):
        needed.append(step.needs(needed[-1], input_size))
    needed.reverse()
    crops, given = [], 0
    for number, (start, stop) in enumerate(needed):
        crops.append((start - given, stop - given))
        if number < len(steps):
            given = steps[number].covers((start, stop))[0]
    return crops, rows
