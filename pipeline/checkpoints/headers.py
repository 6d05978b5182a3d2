"""The headers of weights files: names, types, shapes and places of all tensors, without PyTorch.

A file is told by its first bytes, never by its name. Safetensors' format and its checks are those of
huggingface/safetensors (README and ``safetensors/src/tensor.rs``); GGUF has a module of its own. Files of
``torch.save`` have no header. Knows no formats of quantised models and no models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import InputError
from ..facts.json_text import read_json
from ..facts.storages import StorageFacts

if TYPE_CHECKING:
    import torch

    from .reading import Opened

# safetensors' names -> PyTorch's, and bytes
SAFETENSORS_DTYPES = {
    "F64": ("float64", 8),
    "F32": ("float32", 4),
    "F16": ("float16", 2),
    "BF16": ("bfloat16", 2),
    "F8_E4M3": ("float8_e4m3fn", 1),
    "F8_E5M2": ("float8_e5m2", 1),
    "I64": ("int64", 8),
    "I32": ("int32", 4),
    "I16": ("int16", 2),
    "I8": ("int8", 1),
    "U8": ("uint8", 1),
    "BOOL": ("bool", 1),
}
_LENGTH = 8  # bytes, of the header's own length
_LONGEST = 100_000_000  # bytes of a header, as the library has it
GGUF_MAGIC = b"GGUF"
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how files of torch.save begin, since 1.6 and before
_LFS_POINTER = b"version https://git-lfs"


class FileKind(Enum):
    SAFETENSORS = "safetensors"
    GGUF = "GGUF"
    PICKLE = "PyTorch"


class Source(Protocol):
    """What tensors are in: a file, or memory."""

    path: Path

    def tensor(self, stored: Stored) -> torch.Tensor:
        """The numbers; blocks as bytes."""
        ...

    def content(self, stored: Stored) -> bytes:
        """The bytes of a small tensor."""
        ...


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as it is stored.

    Attributes:
        name: in the file.
        shape: of GGUF blocks, that of the numbers.
        dtype: by PyTorch's name; "uint8" for blocks.
        start, size: bytes in the file; 0 for what is in memory.
        blocks: which, if they are GGUF's.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    source: Source
    start: int = 0
    size: int = 0
    blocks: StorageFacts | None = None


class HeaderFile:
    """A file whose header is read. Its tensors are read, with PyTorch, when the first is asked for.

    Args:
        what: what the file is to the user, for messages.
    """

    def __init__(self, path: Path, kind: FileKind, what: str) -> None:
        self.path, self.kind, self.what = path, kind, what
        self.stamp = file_stamp(path)

    @cached_property
    def _opened(self) -> Opened:
        from .reading import open_file

        return open_file(self)

    def tensor(self, stored: Stored) -> torch.Tensor:
        return self._opened(stored)

    def content(self, stored: Stored) -> bytes:
        with self.path.open("rb") as file:
            file.seek(stored.start)
            return file.read(stored.size)


@dataclass(frozen=True)
class Header:
    """All tensors of a file by the names in it, and its texts."""

    tensors: dict[str, Stored]
    metadata: dict[str, str]


def file_stamp(path: Path) -> tuple[int, int]:
    """Size and time of change, by which a file is seen to be another one."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns


def file_kind(path: Path, what: str) -> FileKind:
    """What a file is, told by how it begins.

    Raises:
        InputError: unreadable, empty, or no weights file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"{what}: {path} cannot be read ({error.strerror}). Check the file.") from error
    if not start:
        raise InputError(f"{what}: {path} is empty (0 bytes). Download it again.")
    if start.startswith(GGUF_MAGIC):  # first, since a tensor count like 1147 makes it look like safetensors
        return FileKind.GGUF
    if start[_LENGTH : _LENGTH + 1] == b"{":  # the length's first byte may be anything, a pickle's too
        return FileKind.SAFETENSORS
    if start.startswith((_ZIP, _PICKLE)):
        return FileKind.PICKLE
    if start.startswith(_LFS_POINTER):
        raise InputError(
            f"{what}: {path} is a Git LFS pointer, not the weights; get them with infinitetalk download or git lfs."
        )
    raise InputError(
        f"{what}: {path} is neither a safetensors nor a PyTorch file nor GGUF (it begins with "
        f"{ascii(start[:20].decode('latin-1'))}). Check the path, or download it again."
    )


def read_header(path: Path, what: str) -> Header:
    """The header of a safetensors or GGUF file.

    Raises:
        InputError: damaged, incomplete, or a tensor of a type that is not read; also for a file of ``torch.save``.
    """
    kind = file_kind(path, what)
    if kind is FileKind.GGUF:
        from .gguf_file import gguf_header

        return gguf_header(HeaderFile(path, kind, what))
    if kind is FileKind.SAFETENSORS:
        return _safetensors_header(HeaderFile(path, kind, what))
    raise InputError(f"{what}: {path} is a PyTorch file, which has no header. Give a safetensors or GGUF file.")


def damaged(path: Path, kind: FileKind, what: str) -> InputError:
    return InputError(f"{what}: {path} is a damaged or incomplete {kind.value} file. Download it again.")


def _safetensors_header(file: HeaderFile) -> Header:
    path, what = file.path, file.what
    try:
        with path.open("rb") as opened:
            length = int.from_bytes(opened.read(_LENGTH), "little")
            if length > min(_LONGEST, file.stamp[0] - _LENGTH):
                raise ValueError("the file ends within the header")
            header = read_json(opened.read(length).decode())
        metadata = header.pop("__metadata__", None) or {}
        if not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("the metadata are no texts")
        places = {name: _place(info) for name, info in header.items()}
        _check_places([place for _, place in places.values()], file.stamp[0] - _LENGTH - length)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OSError) as error:
        raise damaged(path, file.kind, what) from error
    tensors = {}
    for name, (shape, (start, stop)) in places.items():
        stored = header[name]["dtype"]
        if stored not in SAFETENSORS_DTYPES:
            raise InputError(f"{what}: {path} stores {name} as {stored}, which is not read here.")
        dtype, itemsize = SAFETENSORS_DTYPES[stored]
        if stop - start != math.prod(shape) * itemsize:
            raise damaged(path, file.kind, what)
        tensors[name] = Stored(name, shape, dtype, file, _LENGTH + length + start, stop - start)
    return Header(tensors, metadata)


def _place(info: dict[str, list[int]]) -> tuple[tuple[int, ...], tuple[int, int]]:
    """A tensor's shape, and where among the tensors' bytes it is."""
    shape, (start, stop) = tuple(info["shape"]), info["data_offsets"]
    if not all(type(number) is int and number >= 0 for number in (*shape, start, stop)):
        raise ValueError("a shape or a place is no number")
    if not isinstance(info["dtype"], str):
        raise TypeError("a dtype is no name")
    return shape, (start, stop)


def _check_places(places: list[tuple[int, int]], size: int) -> None:
    """See that the tensors lie back to back and fill the rest of the file."""
    end = 0
    for start, stop in sorted(places):
        if start != end or stop < start:
            raise ValueError("there is a hole between tensors")
        end = stop
    if end != size:
        raise ValueError("the file is longer or shorter than its tensors")
