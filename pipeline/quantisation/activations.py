"""Activations in 8 bits: every row (token) is quantised by itself at the moment it is multiplied.

Outliers of one token so cost the others nothing. Knows no matrices and no cards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import torch

LARGEST = {torch.float8_e4m3fn: torch.finfo(torch.float8_e4m3fn).max, torch.int8: 127.0}
# Rows that are quieter than this lose digits, so that the reciprocal of a scale stays finite.
SMALLEST = 1e-30
# Numbers handled at once where a float32 copy is needed: 32 MiB, which a card's cache may hold.
AT_ONCE = 2**23
TOKENS_AT_LEAST = 8192


class Quantised(NamedTuple):
    """``values * scale`` stands for the activations: 8-bit values [rows, channels], scale float32 [rows, 1]."""

    values: torch.Tensor
    scale: torch.Tensor

    @classmethod
    def like(cls, x: torch.Tensor, dtype: torch.dtype) -> Quantised:
        """Memory for ``x`` [rows, channels] in 8 bits."""
        values = torch.empty(x.shape, dtype=dtype, device=x.device)
        return cls(values, torch.empty(len(x), 1, dtype=torch.float32, device=x.device))


Quantise = Callable[[torch.Tensor, torch.dtype], Quantised]


def quantise_rows(x: torch.Tensor, dtype: torch.dtype) -> Quantised:
    """Plain PyTorch: each row over its largest magnitude, times the format's largest number, rounded to nearest.

    Args:
        x: floats [rows, channels].
        dtype: ``torch.float8_e4m3fn`` or ``torch.int8``.
    """
    largest = LARGEST[dtype]
    values, scale = Quantised.like(x, dtype)
    for part in row_slices(*x.shape):
        numbers = x[part].to(torch.float32, copy=True)
        magnitude = torch.linalg.vector_norm(numbers, float("inf"), dim=1, keepdim=True).clamp_(SMALLEST)
        numbers.mul_(largest / magnitude)
        values[part] = numbers.round_() if dtype == torch.int8 else numbers
        scale[part] = magnitude / largest
    return Quantised(values, scale)


def row_slices(rows: int, columns: int) -> Iterator[slice]:
    """The rows of a matrix in nearly equal parts, so small that a float32 copy of one is cheap."""
    parts = max(1, -(-rows * columns // AT_ONCE))
    for index in range(parts):
        yield slice(rows * index // parts, rows * (index + 1) // parts)


def token_slices(tokens: int) -> Iterator[slice]:
    """A window's tokens in nearly equal parts, each large enough to be computed as fast as the whole.

    The parts follow from the number of tokens alone, so that results never depend on what memory is free.
    """
    parts = max(1, tokens // TOKENS_AT_LEAST)
    for index in range(parts):
        yield slice(tokens * index // parts, tokens * (index + 1) // parts)


class Activation:
    """The input of several linear layers, quantised once for all of them: on the way, or when the first one asks.

    Args:
        values: floats [..., channels].
        quantised: the same in 8 bits, by dtype, from a kernel that has made them on the way.
    """

    def __init__(self, values: torch.Tensor, quantised: Mapping[torch.dtype, Quantised] | None = None) -> None:
        self.values = values
        self._quantised = dict(quantised or {})

    @classmethod
    def of_quantised(cls, quantised: Quantised, dtype: torch.dtype) -> Activation:
        """Eight bits alone, of floats of ``dtype`` that were never kept: ``values`` has a shape and no numbers."""
        floats = torch.empty(quantised.values.shape, dtype=dtype, device="meta")
        return cls(floats, {quantised.values.dtype: quantised})

    def __getitem__(self, part: slice) -> Activation:
        """Some tokens of [tokens, channels]."""
        # Products want scales that begin at whole 16 bytes.
        quantised = {
            dtype: Quantised(values[part], scale[part].clone()) for dtype, (values, scale) in self._quantised.items()
        }
        return Activation(self.values[part], quantised)

    def quantised(self, dtype: torch.dtype, quantise: Quantise) -> Quantised:
        """The activations in ``dtype``, made by ``quantise`` unless they are there."""
        if dtype not in self._quantised:
            self._quantised[dtype] = quantise(self.values.flatten(0, -2).contiguous(), dtype)
        return self._quantised[dtype]

    def shared(self) -> Activation:
        """Another holder of the same tensors: what one releases, the other still has."""
        return Activation(self.values, self._quantised)

    def release(self) -> None:
        """Give the memory back when the last layer has had it, whoever still holds this."""
        self.values = self.values.new_empty(0)
        self._quantised = {}


def floats(x: torch.Tensor | Activation) -> torch.Tensor:
    """The activations as they were before quantisation."""
    return x.values if isinstance(x, Activation) else x
