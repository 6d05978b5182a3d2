"""From headers to tensors: the numbers of an entry, as the file keeps them or as the values that they stand for.

Files are memory-mapped, so that opening costs no memory and nothing is read but what is asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import InputError
from ..facts.storages import FP32, StorageFacts
from ..quantisation.codes import CODES
from ..quantisation.rowwise import packed_rows
from ..quantisation.storage import Packed
from .entry import Entry
from .headers import FileKind, HeaderFile, Stored, damaged, file_stamp

Opened = Callable[[Stored], torch.Tensor]


def torch_dtype(name: str) -> torch.dtype:
    """PyTorch's dtype by its name, such as "bfloat16"."""
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """The name of PyTorch's dtype, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


class Memory:
    """Tensors that are in memory already."""

    def __init__(self, tensors: dict[str, torch.Tensor], path: Path) -> None:
        self.path, self._tensors = path, tensors

    def stored(self) -> dict[str, Stored]:
        return {name: Stored(name, tuple(t.shape), dtype_name(t.dtype), self) for name, t in self._tensors.items()}

    def tensor(self, stored: Stored) -> torch.Tensor:
        return self._tensors[stored.name]

    def content(self, stored: Stored) -> bytes:
        return self._tensors[stored.name].contiguous().flatten().view(torch.uint8).numpy().tobytes()


def open_file(file: HeaderFile) -> Opened:
    """Map a file, to give the tensors that its header told of; blocks as bytes.

    Raises:
        InputError: it is not the file any more whose header was read.
    """
    path = file.path
    try:
        if file_stamp(path) != file.stamp:
            raise InputError(f"{file.what}: {path} was changed after it had been opened. Start again.")
        if file.kind is FileKind.SAFETENSORS:
            handle = safe_open(path, framework="pt")
            return lambda stored: handle.get_tensor(stored.name)
        data = torch.from_file(str(path), shared=False, size=file.stamp[0], dtype=torch.uint8)
    except (SafetensorError, OSError) as error:
        raise damaged(path, file.kind, file.what) from error

    def read(stored: Stored) -> torch.Tensor:
        content = data[stored.start : stored.start + stored.size]
        return content if stored.blocks else content.view(torch_dtype(stored.dtype)).view(stored.shape)

    return read


def packed(entry: Entry) -> Packed:
    """The weight as the file keeps it; a plain one shares the file's memory."""
    storage, numbers = entry.storage, entry.numbers
    if storage is None:
        raise KeyError(entry.dtype)
    if not storage.quantised:
        return Packed(CODES[storage], {"weight": values(entry)}, entry.shape)
    tensor = numbers.source.tensor(numbers)
    if storage.blocks is not None:
        rows = tensor.view(entry.shape[0], entry.shape[1] // storage.blocks.weights * storage.blocks.size)
        return Packed(CODES[storage], {"weight": rows}, entry.shape)
    return packed_rows(tensor.view(torch_dtype(entry.dtype)), _scale(entry), CODES[storage])


def values(entry: Entry) -> torch.Tensor:
    """The tensor that an entry stands for: float32 where it is quantised, else as it is, in the file's memory."""
    storage, numbers = entry.storage, entry.numbers
    if storage is not None and storage.quantised:
        return packed(entry).unpacked()
    tensor = numbers.source.tensor(numbers)
    if numbers.blocks is not None:
        return _unblocked(tensor, numbers.blocks).view(entry.shape)
    scale = _scale(entry)
    if storage is FP32 and (scale is not None or entry.dtype != FP32.dtype):
        floats = tensor.view(torch_dtype(entry.dtype)).float()
        return floats if scale is None else floats * scale.float().flatten().view(-1, *[1] * (len(entry.shape) - 1))
    return tensor


def _scale(entry: Entry) -> torch.Tensor | None:
    return None if entry.scale is None else entry.scale.source.tensor(entry.scale)


def _unblocked(tensor: torch.Tensor, storage: StorageFacts) -> torch.Tensor:
    assert storage.blocks is not None
    return CODES[storage].unpack({"weight": tensor.view(-1, storage.blocks.size)})
