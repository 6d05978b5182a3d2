"""The block formats of GGUF files: a matrix's bytes to its numbers.

Each row of a matrix is a run of blocks of 32 or 256 weights; a block holds small integers and the scales
(and, in some formats, the minima) that they are multiplied by. Layouts and the order of the roundings are
those of ``ggml-quants.c`` in ggml, so the numbers are the same to the last bit. Knows no files.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

from ..facts.storages import GGUF, Blocks, StorageFacts
from .storage import Parts, SideBranch, Storage

# Takes blocks uint8 [n, bytes] and fills float32 [n, weights].
_Fill = Callable[[torch.Tensor, torch.Tensor], None]

_SIDE_BRANCH = SideBranch("the blocks of GGUF files are read here, but not written")
# How many weights are unpacked at once: on the CPU the intermediate results stay in the cache, on other devices each
# step is long enough to keep the device busy.
CHUNK_ON_CPU, CHUNK = 1 << 19, 1 << 24
_IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _unpack(parts: Parts, dtype: torch.dtype = torch.float32, *, fill: _Fill, weights: int, size: int) -> torch.Tensor:
    """A matrix [out, in] from ``weight`` uint8 [out, row bytes].

    Computed in float32 some rows at a time and rounded once, so another ``dtype`` costs neither a float32 matrix
    nor accuracy.
    """
    rows = parts["weight"]
    count, row_bytes = rows.shape
    matrix = torch.empty(count, row_bytes // size * weights, dtype=dtype, device=rows.device)
    step = max(1, (CHUNK_ON_CPU if rows.device.type == "cpu" else CHUNK) // matrix.shape[1])
    scratch = None
    if dtype != torch.float32:
        scratch = torch.empty(min(step, count), matrix.shape[1], device=rows.device)
    for start in range(0, count, step):
        target = matrix[start : start + step]
        numbers = target if scratch is None else scratch[: len(target)]
        fill(rows[start : start + step].view(-1, size), numbers.view(-1, weights))
        if scratch is not None:
            target.copy_(numbers)
    return matrix


def _half(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """The fp16 number at this byte of each block, float32 [n, 1]."""
    return blocks[:, at : at + 2].view(torch.float16).float()


def _fields(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Bytes [..., w] to the fields of ``bits`` that each holds, lowest first: [..., 8 / bits, w]."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=packed.device)[:, None]
    return (packed.unsqueeze(-2) >> shifts).bitwise_and_((1 << bits) - 1)


def _scaled(integers: torch.Tensor, scales: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Integers [n, weights] times float32 scales [n, groups] into ``numbers``; gives them as [n, groups, ...]."""
    groups = numbers.unflatten(1, (scales.shape[1], -1))
    return torch.mul(integers.view(groups.shape), scales[:, :, None], out=groups)


def _q4_0(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    integers = _fields(blocks[:, 2:], 4).view(torch.int8).sub_(8)
    _scaled(integers, _half(blocks, 0), numbers)


def _q4_1(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    _scaled(_fields(blocks[:, 4:], 4), _half(blocks, 0), numbers)
    numbers.add_(_half(blocks, 2))


def _fifth_bits(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """32 bits in 4 bytes, as 0 or 16: uint8 [n, 2, 16]."""
    bits = _fields(blocks[:, at : at + 4, None], 1)
    return bits.bitwise_left_shift_(4).view(-1, 2, 16)


def _q5_0(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    integers = _fields(blocks[:, 6:], 4).bitwise_or_(_fifth_bits(blocks, 2)).view(torch.int8).sub_(16)
    _scaled(integers, _half(blocks, 0), numbers)


def _q5_1(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    integers = _fields(blocks[:, 8:], 4).bitwise_or_(_fifth_bits(blocks, 4))
    _scaled(integers, _half(blocks, 0), numbers)
    numbers.add_(_half(blocks, 2))


def _q8_0(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    torch.mul(blocks[:, 2:].view(torch.int8), _half(blocks, 0), out=numbers)


def _q2_k(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    integers = _fields(blocks[:, 16:80].unflatten(1, (2, 32)), 2)
    scales, minima = _half(blocks, 80) * (blocks[:, :16] & 15), _half(blocks, 82) * (blocks[:, :16] >> 4)
    _scaled(integers, scales, numbers).sub_(minima[:, :, None])


def _q3_k(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    high = _fields(blocks[:, :32], 1).bitwise_left_shift_(2)
    integers = _fields(blocks[:, 32:96].unflatten(1, (2, 32)), 2).view(-1, 8, 32).bitwise_or_(high)
    low = _fields(blocks[:, 96:104], 4).view(-1, 16)
    scales = _fields(blocks[:, 104:108], 2).bitwise_left_shift_(4).view(-1, 16).bitwise_or_(low)
    _scaled(integers.view(torch.int8).sub_(4), _half(blocks, 108) * scales.view(torch.int8).sub_(32), numbers)


def _scales_and_minima(blocks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of the 8 groups of Q4_K and Q5_K, float32 [n, 8] each; 6 bits each in 12 bytes, computed on 4 bytes at a time."""
    first, second, both = blocks[:, 4:16].view(torch.int32).unbind(1)
    scales = torch.stack((first & 0x3F3F3F3F, both & 0x0F0F0F0F | first >> 2 & 0x30303030), 1)
    minima = torch.stack((second & 0x3F3F3F3F, both >> 4 & 0x0F0F0F0F | second >> 2 & 0x30303030), 1)
    return _half(blocks, 0) * scales.view(torch.uint8), _half(blocks, 2) * minima.view(torch.uint8)


def _q4_k(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    integers = _fields(blocks[:, 16:].unflatten(1, (4, 32)), 4)
    scales, minima = _scales_and_minima(blocks)
    _scaled(integers, scales, numbers).sub_(minima[:, :, None])


def _q5_k(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    high = _fields(blocks[:, 16:48], 1).bitwise_left_shift_(4)
    integers = _fields(blocks[:, 48:].unflatten(1, (4, 32)), 4).view(-1, 8, 32).bitwise_or_(high)
    scales, minima = _scales_and_minima(blocks)
    _scaled(integers, scales, numbers).sub_(minima[:, :, None])


def _q6_k(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    high = _fields(blocks[:, 128:192].unflatten(1, (2, 32)), 2).bitwise_left_shift_(4)
    low = _fields(blocks[:, :128].unflatten(1, (2, 64)), 4)
    integers = high.view(-1, 256).bitwise_or_(low.view(-1, 256)).view(torch.int8).sub_(32)
    _scaled(integers, _half(blocks, 208) * blocks[:, 192:208].view(torch.int8), numbers)


def _iq4_values(indices: torch.Tensor) -> torch.Tensor:
    return torch.tensor(_IQ4_VALUES, dtype=torch.int8, device=indices.device)[indices.int()]


def _iq4_nl(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    _scaled(_iq4_values(_fields(blocks[:, 2:], 4)), _half(blocks, 0), numbers)


def _iq4_xs(blocks: torch.Tensor, numbers: torch.Tensor) -> None:
    low = _fields(blocks[:, 4:8, None], 4).view(-1, 8)
    scales = _fields(blocks[:, 2:4, None], 2).bitwise_left_shift_(4).view(-1, 8).bitwise_or_(low)
    integers = _iq4_values(_fields(blocks[:, 8:].unflatten(1, (8, 16)), 4))
    _scaled(integers, _half(blocks, 0) * scales.view(torch.int8).sub_(32), numbers)


_FILLS: dict[str, _Fill] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _iq4_nl,
    "IQ4_XS": _iq4_xs,
}


def _storage(facts: StorageFacts, blocks: Blocks) -> Storage:
    fill = _FILLS[facts.name.removeprefix("GGUF ")]
    return Storage(facts, partial(_unpack, fill=fill, weights=blocks.weights, size=blocks.size), _SIDE_BRANCH)


STORAGES = {
    facts.name.removeprefix("GGUF "): _storage(facts, facts.blocks) for facts in GGUF if facts.blocks is not None
}
