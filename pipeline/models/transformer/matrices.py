"""Sizes of the transformer as it will be kept. Plain data; knows no files and no device."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TransformerSize:
    """Sizes that memory depends on; parameters are counted, widths are channels.

    Attributes:
        block_bytes: of what a step needs of one block, as it is kept.
        context_bytes: of the rest of it, which makes keys and values of text and image.
        other_bytes: of everything but the blocks.
        scratch: for reading a quantised matrix back.
    """

    blocks: int
    block_parameters: int
    other_parameters: int
    dim: int
    ffn_dim: int
    block_bytes: int
    context_bytes: int
    other_bytes: int
    scratch: int
