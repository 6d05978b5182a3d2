"""Every way of keeping the numbers of a weight: what it is called, what it takes, and what may become of it.

The code that reads and writes each is in ``quantisation`` (``quantisation.codes`` by these rows); a test says that
both sides agree. Knows no files and no tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SCALE_BYTES = 4  # float32


@dataclass(frozen=True)
class Blocks:
    """GGUF's blocks: so many ``weights`` in ``size`` bytes, and ggml's number of the type."""

    number: int
    weights: int
    size: int


@dataclass(frozen=True)
class StorageFacts:
    """One way of keeping a weight.

    Attributes:
        name: for people, such as "fp8 e4m3".
        bits: of one weight, scales of blocks included and those of rows left out.
        dtype: of the numbers in a file, by PyTorch's name; of blocks "uint8".
        quantised: False for plain floats.
        again: the name of the storage into which a changed matrix is stored; None where it cannot be written.
        choice: what the settings call it, of those that can be asked for.
        help: what it is good for, for people who choose.
        requirement: what products in 8 bits need; without it matrices are read back for each product.
        exactness: how far a random matrix is from its floats.
        row_scales: whether a float32 scale for each row lies beside the numbers.
        comfy: what ComfyUI's files and lightx2v's call it.
        written: what a converted file calls it, of those that can be written.
        quanto: what quanto's maps call it.
        blocks: of GGUF's formats.
    """

    name: str
    bits: float
    dtype: str
    quantised: bool = True
    again: str | None = None
    choice: str | None = None
    help: str = ""
    requirement: str = ""
    exactness: str = ""
    row_scales: bool = False
    comfy: tuple[str, ...] = ()
    written: str | None = None
    quanto: tuple[str, ...] = ()
    blocks: Blocks | None = None

    def bytes(self, shape: Sequence[int]) -> int:
        """What a weight of this shape takes, scales included."""
        scales = SCALE_BYTES * shape[0] if self.row_scales else 0
        return math.ceil(math.prod(shape) * self.bits / 8) + scales


def _floats(name: str, dtype: str, bits: int, exactness: str) -> StorageFacts:
    return StorageFacts(name, bits, dtype, quantised=False, again=name, exactness=exactness)


def _blocks(name: str, number: int, weights: int, size: int, exactness: str) -> StorageFacts:
    blocks = Blocks(number, weights, size)
    return StorageFacts(f"GGUF {name}", 8 * size / weights, "uint8", exactness=exactness, blocks=blocks)


FP64 = _floats("fp64", "float64", 64, "exact")
FP32 = _floats("fp32", "float32", 32, "exact")
FP16 = _floats("fp16", "float16", 16, "0.02 %")
BF16 = _floats("bf16", "bfloat16", 16, "0.2 %")
FP8_E4M3 = StorageFacts(
    "fp8 e4m3",
    8,
    "float8_e4m3fn",
    again="fp8 e4m3",
    choice="fp8",
    help="half of bf16, fastest on RTX 40 and newer",
    requirement="a card of compute capability 8.9 (RTX 40xx, H100) or newer",
    exactness="2.6 %",
    row_scales=True,
    comfy=("float8_e4m3fn", "float8_e4m3fn_rowwise"),
    written="float8_e4m3fn_rowwise",
    quanto=("qfloat8", "qfloat8_e4m3fn"),
)
FP8_E5M2 = StorageFacts(
    "fp8 e5m2",
    8,
    "float8_e5m2",
    again="fp8 e4m3",  # with a scale for each row it needs no more range, and keeps a bit
    choice="fp8",
    requirement=FP8_E4M3.requirement,
    exactness="5.2 %",
    row_scales=True,
    comfy=("float8_e5m2", "float8_e5m2_rowwise"),
    written="float8_e5m2_rowwise",
    quanto=("qfloat8_e5m2",),
)
INT8 = StorageFacts(
    "int8",
    8,
    "int8",
    again="int8",
    choice="int8",
    help="half of bf16, nearer to it than fp8, for cards before RTX 40 too",
    requirement="a CUDA card",
    exactness="0.7 %",
    row_scales=True,
    comfy=("int8_tensorwise",),
    written="int8_tensorwise",
    quanto=("qint8",),
)
GGUF = tuple(
    _blocks(*row)
    for row in (
        ("Q4_0", 2, 32, 18, "8.6 %"),
        ("Q4_1", 3, 32, 20, "7.8 %"),
        ("Q5_0", 6, 32, 22, "4.3 %"),
        ("Q5_1", 7, 32, 24, "3.8 %"),
        ("Q8_0", 8, 32, 34, "0.6 %"),
        ("Q2_K", 10, 256, 84, "28 %"),
        ("Q3_K", 11, 256, 110, "15 %"),
        ("Q4_K", 12, 256, 144, "7.3 %"),
        ("Q5_K", 13, 256, 176, "3.6 %"),
        ("Q6_K", 14, 256, 210, "1.9 %"),
        ("IQ4_NL", 20, 32, 18, "7.5 %"),
        ("IQ4_XS", 23, 256, 136, "7.5 %"),
    )
)

STORAGES = (
    *(FP64, FP32, FP16, BF16),
    *(FP8_E4M3, FP8_E5M2, INT8),
    *GGUF,
)
BY_NAME = {storage.name: storage for storage in STORAGES}
FLOATS = {storage.dtype: storage for storage in STORAGES if not storage.quantised}
ROW_SCALED = {storage.dtype: storage for storage in STORAGES if storage.row_scales}  # 8 bits, by dtype


def choices() -> dict[str, tuple[StorageFacts, ...]]:
    """What the settings can ask for, and which storages each of them means: first the one that is made."""
    names = dict.fromkeys(storage.choice for storage in STORAGES if storage.choice is not None)
    return {name: tuple(storage for storage in STORAGES if storage.choice == name) for name in names}
