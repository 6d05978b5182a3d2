"""The zip archive of ``torch.save``: whether its records are what its pickle says, so that PyTorch may map them.

PyTorch itself takes the bytes where a record begins for the numbers, compressed or not, and as many as the pickle
says, whatever is there (``torch/serialization.py``). Nothing in the pickle is executed.
"""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path

_ITEMSIZES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "ComplexFloatStorage": 8,
    "ComplexDoubleStorage": 16,
}  # of others one byte
_LONGEST_PICKLE = 1 << 28
TIMES, SMALL = 16, 1 << 26  # records may unpack to so many times the file's bytes, or to so many


class TooLargeError(Exception):
    """A file unpacks to more than anybody needs. ``str(error)`` goes on after the file's name."""


def check_records(path: Path) -> bool:
    """Compare the records of an archive with what its pickle says of them.

    Returns:
        Whether they can be mapped: none is compressed.

    Raises:
        ValueError, zipfile.BadZipFile, pickle.UnpicklingError: the file is damaged.
        TooLargeError: it unpacks to far more than it has.
    """
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        records = {info.filename: info for info in archive.infolist()}
        if len(records) != len(archive.infolist()):
            raise ValueError("a record is there twice")
        unpacked = sum(info.file_size for info in records.values())
        if unpacked > max(TIMES * size, SMALL):
            raise TooLargeError(f"has {size} bytes and unpacks to {unpacked}")
        root = next(name for name in [*records, ""] if name.endswith("data.pkl") or not name)
        if not root or records[root].file_size > _LONGEST_PICKLE:
            raise ValueError("no pickle, or one too long")
        storages = _storages(archive.read(root))
    prefix = root.removesuffix("data.pkl")
    for key, needed in storages.items():
        info = records.get(f"{prefix}data/{key}")
        if info is None or info.file_size < needed or info.header_offset + info.compress_size > size:
            raise ValueError(f"record {key} is missing or too short")
    return all(info.compress_type == zipfile.ZIP_STORED for info in records.values())


def _storages(content: bytes) -> dict[str, int]:
    """Bytes of every storage that a pickle names, by key."""
    reader = _Reader(io.BytesIO(content))
    reader.load()
    return reader.storages


class _Inert:
    """Stands for everything that a pickle would make, and does nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __call__(self, *_: object) -> _Inert:
        return self

    def __setitem__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass

    def append(self, _: object) -> None:
        pass

    extend = add = append


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> type[_Inert]:
        return type(name, (_Inert,), {})

    def persistent_load(self, given: tuple) -> _Inert:
        _, kind, key, _, count = given[:5]
        if type(count) is not int or count < 0:
            raise ValueError("a storage of no size")
        needed = count * _ITEMSIZES.get(getattr(kind, "__name__", ""), 1)
        self.storages[str(key)] = max(needed, self.storages.get(str(key), 0))
        return _Inert()
