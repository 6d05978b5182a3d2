"""The headers of GGUF files: the tensors by their own names, without PyTorch.

A GGUF file is a header (texts and numbers by key, then each tensor's name, shape, type and place) followed by
the tensors (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md). Image and video models keep the names of
their own checkpoints in it; only T5, which llama.cpp renames, gets transformers' names back here. The header is
read here rather than with the ``gguf`` package, which turns every one of a text encoder's 256 thousand tokens
into an object. Knows nothing of models otherwise.
"""

from __future__ import annotations

import math
import mmap
import re
import struct
from dataclasses import dataclass

from ..errors import InputError
from ..facts.storages import GGUF, StorageFacts
from .headers import GGUF_MAGIC, FileKind, Header, HeaderFile, Stored, damaged

_VERSIONS = (2, 3)  # 3 has the same layout and may be big-endian
# ggml's numbers of plain types -> PyTorch's names, and bytes
_PLAIN = {
    0: ("float32", 4),
    1: ("float16", 2),
    24: ("int8", 1),
    25: ("int16", 2),
    26: ("int32", 4),
    27: ("int64", 8),
    28: ("float64", 8),
    30: ("bfloat16", 2),
}
_BLOCKS = {storage.blocks.number: storage for storage in GGUF if storage.blocks is not None}
_NOT_READ = {
    16: "IQ2_XXS",
    17: "IQ2_XS",
    18: "IQ3_XXS",
    19: "IQ1_S",
    21: "IQ3_S",
    22: "IQ2_S",
    29: "IQ1_M",
    34: "TQ1_0",
    35: "TQ2_0",
    39: "MXFP4",
    40: "NVFP4",
}
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}  # struct's codes
_TEXT, _ARRAY = 8, 9
_ALIGNMENT = 32  # of the tensors, unless general.alignment says otherwise
_MOST_AXES = 8
# Converters write a tensor that they had to reshape with its real shape under this key (city96/ComfyUI-GGUF).
_REAL_SHAPE = "comfy.gguf.orig_shape."
_T5 = ("t5", "t5encoder")  # llama.cpp's general.architecture
_T5_NAMES = {
    "token_embd": "shared",
    "enc.output_norm": "encoder.final_layer_norm",
    "attn_norm": "layer.0.layer_norm",
    "attn_q": "layer.0.SelfAttention.q",
    "attn_k": "layer.0.SelfAttention.k",
    "attn_v": "layer.0.SelfAttention.v",
    "attn_o": "layer.0.SelfAttention.o",
    "attn_rel_b": "layer.0.SelfAttention.relative_attention_bias",
    "ffn_norm": "layer.1.layer_norm",
    "ffn_gate": "layer.1.DenseReluDense.wi_0",
    "ffn_up": "layer.1.DenseReluDense.wi_1",
    "ffn_down": "layer.1.DenseReluDense.wo",
}


_Value = str | int | float | tuple[int, ...] | None


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor as the header tells of it; ``start`` counts from where the tensors begin."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int


class _Header:
    """Walks through the header's fields. Raises ValueError where it cannot be right."""

    def __init__(self, data: memoryview, start: int) -> None:
        self._data = data
        self.position = start

    def numbers(self, code: str, count: int = 1) -> tuple[int, ...]:
        taken = self._take(struct.calcsize("<" + code) * count)
        return struct.unpack(f"<{count}{code}", taken)

    def number(self, code: str) -> int:
        return self.numbers(code)[0]

    def text(self) -> str:
        return str(self._take(self.number("Q")), "utf-8")

    def value(self) -> _Value:
        """A text, a number or several; None for a list of texts, such as tokens."""
        kind = self.number("I")
        if kind == _TEXT:
            return self.text()
        if kind != _ARRAY:
            return self.number(_NUMBERS[kind])
        kind, count = self.number("I"), self.number("Q")
        if kind != _TEXT:
            return self.numbers(_NUMBERS[kind], count)
        for _ in range(count):
            self._take(self.number("Q"))
        return None

    def _take(self, size: int) -> memoryview:
        taken = self._data[self.position : self.position + size]
        if len(taken) < size:
            raise ValueError("the file ends within the header")
        self.position += size
        return taken


def gguf_header(file: HeaderFile) -> Header:
    """Every tensor by its name in the file, and the texts and numbers of the file's header.

    Args:
        file: which begins with ``GGUF_MAGIC``.

    Raises:
        InputError: damaged, incomplete, of another version, big-endian, or a tensor of a type that is not read.
    """
    with file.path.open("rb") as opened:
        data = memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
    try:
        fields, tensors, begin = _header(data, file)
        stored = {tensor.name: _stored(tensor, _real_shape(tensor, fields), begin, file) for tensor in tensors}
        if len(stored) < len(tensors):
            raise ValueError("a name is there twice")
    except (ValueError, KeyError) as error:
        raise damaged(file.path, FileKind.GGUF, file.what) from error
    if fields.get("general.architecture") in _T5:
        stored = {_transformers_name(name): tensor for name, tensor in stored.items()}
    return Header(stored, {key: str(value) for key, value in fields.items() if isinstance(value, str | int | float)})


def _header(data: memoryview, file: HeaderFile) -> tuple[dict[str, _Value], list[_Tensor], int]:
    """The fields by key, the tensors, and where in the file they begin."""
    path, what = file.path, file.what
    header = _Header(data, len(GGUF_MAGIC))
    version = header.number("I")
    if version and version & 0xFFFF == 0:
        raise InputError(
            f"{what}: {path} is a GGUF file for big-endian computers, which is not read here. "
            "Give the usual (little-endian) one."
        )
    if version not in _VERSIONS:
        raise InputError(
            f"{what}: {path} is a GGUF file of version {version}; versions {_VERSIONS[0]} and {_VERSIONS[1]} are read. "
            "Give a file of one of these, or safetensors."
        )
    tensor_count, field_count = header.numbers("Q", 2)
    fields = {header.text(): header.value() for _ in range(field_count)}
    tensors = []
    for _ in range(tensor_count):
        name, axes = header.text(), header.number("I")
        if axes > _MOST_AXES:
            raise ValueError(f"{name} has {axes} axes")
        shape = header.numbers("Q", axes)[::-1]  # ggml counts axes from the innermost
        tensors.append(_Tensor(name, shape, header.number("I"), header.number("Q")))
    alignment = fields.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 8 or alignment % 8:
        raise ValueError(f"general.alignment is {alignment}")
    return fields, tensors, -(-header.position // alignment) * alignment


def _real_shape(tensor: _Tensor, fields: dict[str, _Value]) -> tuple[int, ...]:
    shape = fields.get(_REAL_SHAPE + tensor.name, tensor.shape)
    if not isinstance(shape, tuple) or not all(isinstance(length, int) and length > 0 for length in shape):
        raise ValueError(f"the shape of {tensor.name} is {shape}")
    if math.prod(shape) != math.prod(tensor.shape):
        raise ValueError(f"{tensor.name} is of shape {tensor.shape}, and of {shape} in the fields")
    return shape


def _stored(tensor: _Tensor, shape: tuple[int, ...], begin: int, file: HeaderFile) -> Stored:
    """A tensor's type and place in the file, where the tensors begin at ``begin``."""
    count = math.prod(shape)
    blocks: StorageFacts | None = None
    if tensor.kind in _PLAIN:
        dtype, itemsize = _PLAIN[tensor.kind]
        size = count * itemsize
    elif tensor.kind in _BLOCKS:
        blocks, dtype = _BLOCKS[tensor.kind], "uint8"
        if blocks.blocks is None or count % blocks.blocks.weights:
            raise ValueError(f"{tensor.name} is not made of whole blocks")
        size = count // blocks.blocks.weights * blocks.blocks.size
    else:
        kind = _NOT_READ.get(tensor.kind, f"type {tensor.kind}")
        raise InputError(
            f"{file.what}: {file.path} stores {tensor.name} as {kind}, which is not read here. "
            f"Give a file of one of the types {', '.join(storage.name.removeprefix('GGUF ') for storage in GGUF)}."
        )
    if begin + tensor.start + size > file.stamp[0] or tensor.start % 8:
        raise ValueError(f"{tensor.name} is not where the header says")
    return Stored(tensor.name, shape, dtype, file, begin + tensor.start, size, blocks)


def _transformers_name(name: str) -> str:
    """llama.cpp's name of a T5 tensor as transformers calls it; other names stay."""
    block = re.fullmatch(r"enc\.blk\.(\d+)\.(\w+)\.weight", name)
    stem = block[2] if block else name.removesuffix(".weight")
    if stem not in _T5_NAMES:
        return name
    return (f"encoder.block.{block[1]}." if block else "") + f"{_T5_NAMES[stem]}.weight"
