"""Device memory of a run, from sizes alone, and how many transformer blocks can stay on the device.

Factors were fitted to peaks measured at real size (benchmarks/README.md). Knows no files and no device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

GIB = 2**30
SLOTS = 2  # on the device, for blocks that are copied in
TEXT_TOKENS, IMAGE_TOKENS, AUDIO_TOKENS_PER_LATENT = 512, 257, 32
# What a block holds at its worst moment, in vectors of width dim for every token: attention's
# inputs and outputs, float32 copies for the rotation, and what the allocator cannot reuse.
BLOCK_VECTORS = 9
# The VAE, four frames at once with what it remembers of those before, by the bytes of its numbers.
VAE_BYTES_PER_PIXEL = {4: 29_000, 2: 12_100}
VAE_SHARE = 0.6  # of the memory that there is, at most, for a VAE in float32 that nobody asked for
MARGIN = GIB
TEXT_ENCODER_ROOM = 2 * GIB  # of one block of umT5 at a time


@dataclass(frozen=True)
class TransformerSize:
    """Sizes that memory depends on; parameters are counted, widths are channels.

    Attributes:
        block_bytes, other_bytes: of one block and of everything else, as they are kept.
        scratch: for reading a quantised matrix back.
    """

    blocks: int
    block_parameters: int
    other_parameters: int
    dim: int
    ffn_dim: int
    block_bytes: int
    other_bytes: int
    scratch: int


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on the device. An estimate from sizes, not a promise.

    Attributes:
        weights: of the transformer.
        contexts: keys and values of text, image and speech in all blocks.
        activations: of a step.
        vae: of encoding and decoding, while weights and contexts stay where they are.
    """

    weights: int
    contexts: int
    activations: int
    vae: int

    @property
    def peak(self) -> int:
        return self.weights + self.contexts + max(self.activations, self.vae)


def estimate_memory(
    size: TransformerSize,
    resident: int,
    tokens: int,
    latent_frames: int,
    passes: int,
    pixels: int,
    itemsize: int,
    teacache: bool = False,
    vae_itemsize: int = 4,
) -> MemoryEstimate:
    """Memory of a run with whole blocks copied in through slots where they do not stay.

    Args:
        resident: blocks that stay on the device.
        tokens: of a window, in ``latent_frames`` latent frames.
        passes: guidance passes of a step.
        pixels: of one frame.
        itemsize: bytes of an activation.
        teacache: whether each pass keeps what the blocks added.
        vae_itemsize: bytes of the VAE's numbers.
    """
    vectors = BLOCK_VECTORS + passes * (2 if teacache else 1)
    on_device = resident + min(SLOTS, size.blocks - resident)
    texts, speeches = (2, 2) if passes == 3 else (1, passes)
    context = texts * TEXT_TOKENS + IMAGE_TOKENS + speeches * latent_frames * AUDIO_TOKENS_PER_LATENT
    return MemoryEstimate(
        weights=size.other_bytes + on_device * size.block_bytes + size.scratch,
        contexts=size.blocks * context * 2 * size.dim * itemsize,
        activations=tokens * (vectors * size.dim + 2 * size.ffn_dim) * itemsize,
        vae=pixels * VAE_BYTES_PER_PIXEL[vae_itemsize],
    )


def resident_blocks(
    size: TransformerSize,
    persistent: int | None,
    swapped: int | None,
    estimate: Callable[[int], MemoryEstimate],
    free: int | None,
) -> int:
    """How many transformer blocks stay on the device.

    Args:
        persistent: ``num_persistent_param_in_dit``; parameters outside the blocks always stay and
            count first.
        swapped: ``blocks_to_swap``.
        estimate: memory of the run by number of resident blocks.
        free: bytes that are free on the device; with neither of the two settings, as many blocks
            stay as fit. None: all stay.
    """
    if swapped is not None:
        return max(0, size.blocks - swapped)
    if persistent is not None:
        return min(size.blocks, max(0, persistent - size.other_parameters) // size.block_parameters)
    if free is None:
        return size.blocks
    return max((n for n in range(size.blocks + 1) if estimate(n).peak + MARGIN <= free), default=0)
