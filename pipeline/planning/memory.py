"""Device memory of a run, from sizes alone, and how many transformer blocks can stay on the device.

Factors were fitted to peaks measured at real size (benchmarks/README.md). Knows no files and no device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil

import torch

from ..facts.attention import extra_vectors
from ..facts.sizes import GIB, SLOTS
from ..models.transformer.block import TEXT_TOKENS
from ..models.transformer.matrices import TransformerSize
from ..models.vae.tiles import grid
from ..parallel.division import ONE_CARD, Division
from ..quantisation.activations import token_slices
from ..sampling.guidance import most_passes
from ..settings.definition import Settings
from .windows import tokens_per_window

IMAGE_TOKENS = 257
# What a block holds at its worst moment, in vectors of width dim for every token: the residual stream, the input in
# 16 and 8 bits, queries, keys and values (tests/models/test_transformer_memory.py counts them), and what the allocator
# cannot reuse. The feed-forward holds the stream, its input, and some tokens' hidden channels before and after GELU.
BLOCK_VECTORS = 6.5
FEED_FORWARD_VECTORS = 3
EXCHANGE_VECTORS = 2  # where cards share tokens: what has left and is kept until it has arrived
# The VAE, four frames at once with what it remembers of those before, by the bytes of its numbers; and in tiles,
# where a window's coarse features and its frames wait as well.
VAE_BYTES_PER_PIXEL = {4: 29_000, 2: 12_100}
VAE_WAITING = 370
VAE_BORDER = 13  # pixels: how much larger a tile is for each neighbour, on the average over its layers
VAE_TILES = (1, 2, 4, 6, 9, 12, 16, 20, 25)
MARGIN = GIB
TEXT_ENCODER_ROOM = 2 * GIB  # of one block of umT5 at a time
SEPARATOR_ROOM = 3 * GIB  # of eight to eleven seconds of sound


@dataclass(frozen=True)
class VaePlan:
    """How the VAE works. Decides the last bits of what it gives.

    Attributes:
        tiles: of a picture.
    """

    dtype: torch.dtype = torch.float32
    tiles: int = 1

    @staticmethod
    def room(total: int) -> int:
        """What it may take of a card's memory: a third of a small one, a fifth of a large one."""
        return max(total // 5, min(total // 3, 4 * GIB))

    def bytes(self, pixels: int) -> int:
        """What it takes on the device for pictures of so many pixels."""
        itemsize = self.dtype.itemsize
        rate = VAE_BYTES_PER_PIXEL[itemsize]
        if self.tiles == 1:
            return pixels * rate
        tile = 1.0
        for parts in grid(self.tiles, 1, 1):
            tile *= pixels**0.5 / parts + VAE_BORDER * min(parts - 1, 2)
        return int(tile * rate + pixels * VAE_WAITING * itemsize)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device. An estimate from sizes, not a promise.

    Attributes:
        weights: of the transformer during a step.
        weights_left: those that are still there while the VAE works.
        contexts: keys and values of text and image in all blocks.
        activations: of a step.
        vae: of encoding and decoding.
    """

    weights: int
    weights_left: int
    contexts: int
    activations: int
    vae: int

    @property
    def peak(self) -> int:
        return self.contexts + max(self.weights + self.activations, self.weights_left + self.vae)


@dataclass(frozen=True)
class Placement:
    """What of the transformer stays on the device between steps.

    Attributes:
        resident: how many of the first blocks.
        contexts: whether also what makes keys and values of text and image.
    """

    resident: int
    contexts: bool


@dataclass(frozen=True)
class Workload:
    """What one card computes at a time.

    Attributes:
        tokens: of a window, or this card's part of them.
        passes: guidance passes of a step, or this card's.
        pixels: of one frame.
        itemsize: bytes of an activation.
        teacache: whether each pass keeps what the blocks added.
        attention: which, as in the settings.
        together: how many cards share a pass's tokens.
    """

    tokens: int
    passes: int
    pixels: int
    itemsize: int
    teacache: bool = False
    attention: str = "auto"
    together: int = 1

    @classmethod
    def of(cls, settings: Settings, size: tuple[int, int], itemsize: int, division: Division = ONE_CARD) -> Workload:
        """What a card has to do for a video.

        Args:
            settings: resolved.
            size: (height, width) of the video, in pixels.
            itemsize: bytes of an activation.
            division: of a step with all passes.
        """
        tokens = tokens_per_window(settings.frame_num, *size)
        passes = most_passes(settings)
        return cls(
            ceil(tokens / division.sequence),
            ceil(passes / division.guidance),
            size[0] * size[1],
            itemsize,
            settings.use_teacache,
            settings.attention,
            division.sequence,
        )


def estimate_memory(
    size: TransformerSize, placement: Placement, work: Workload, vae: VaePlan = VaePlan(), offload: bool = False
) -> MemoryEstimate:
    """Memory of a run with whole blocks copied in through slots where they do not stay.

    Args:
        offload: whether the blocks leave while the VAE works.
    """
    attending = BLOCK_VECTORS + extra_vectors(work.attention) + (EXCHANGE_VECTORS if work.together > 1 else 0)
    parts = len(list(token_slices(work.tokens)))
    feed_forward = FEED_FORWARD_VECTORS + 2 * size.ffn_dim / size.dim / parts
    # Each pass has a residual stream; TeaCache keeps the blocks' input too, or what each pass added in its stead.
    vectors = max(attending, feed_forward) + work.passes - 1 + work.teacache
    stay = placement.resident * size.block_bytes + placement.contexts * size.blocks * size.context_bytes
    stay = ceil(stay / size.shares)
    copied = size.blocks - placement.resident if size.shares == 1 else size.blocks
    slots = min(SLOTS, copied) * size.block_bytes
    texts = 2 if work.passes == 3 else 1
    context = texts * TEXT_TOKENS + IMAGE_TOKENS
    return MemoryEstimate(
        weights=size.other_bytes + stay + slots + size.scratch,
        weights_left=size.other_bytes + (0 if offload else stay),
        contexts=size.blocks * context * 2 * size.dim * work.itemsize,
        activations=int(work.tokens * vectors * size.dim * work.itemsize),
        vae=vae.bytes(work.pixels),
    )


def host_bytes(size: TransformerSize, placement: Placement, offload: bool) -> int:
    """Bytes of host memory that the transformer takes: what is copied in; with ``offload``, all blocks."""
    blocks, contexts = size.blocks * size.block_bytes, size.blocks * size.context_bytes
    if not offload:
        blocks -= placement.resident * size.block_bytes
        contexts = 0 if placement.contexts else contexts
    return ceil((blocks + contexts) / size.shares)


def place_blocks(
    size: TransformerSize,
    persistent: int | None,
    swapped: int | None,
    estimate: Callable[[Placement], MemoryEstimate],
    free: int | None,
) -> Placement:
    """What of the transformer stays on the device.

    What makes keys and values of text and image stays only beside all blocks: it is needed once a video.

    Args:
        persistent: ``num_persistent_param_in_dit``; parameters outside the blocks always stay and
            count first.
        swapped: ``blocks_to_swap``.
        estimate: memory of the run by what stays.
        free: bytes that are free on the device; with neither of the two settings, as many blocks
            stay as fit. None: all stay.
    """

    def fits(placement: Placement) -> bool:
        return free is None or estimate(placement).peak + MARGIN <= free

    if swapped is not None:
        resident = max(0, size.blocks - swapped)
    elif persistent is not None:
        resident = min(size.blocks, max(0, persistent - size.other_parameters) // size.block_parameters)
    elif free is None:
        resident = size.blocks
    else:
        resident = max((n for n in range(size.blocks + 1) if fits(Placement(n, False))), default=0)
    return Placement(resident, resident == size.blocks and fits(Placement(resident, True)))


def plan_memory(
    size: TransformerSize, settings: Settings, work: Workload, free: int | None, vae: VaePlan
) -> tuple[Placement, MemoryEstimate]:
    """What of the transformer stays on the device, and what the run needs then.

    Args:
        settings: resolved.
        free: bytes that are free on the device; None if that does not matter.
    """

    def estimate(placement: Placement) -> MemoryEstimate:
        return estimate_memory(size, placement, work, vae, bool(settings.offload_model))

    placement = place_blocks(size, settings.num_persistent_param_in_dit, settings.blocks_to_swap, estimate, free)
    return placement, estimate(placement)
