"""Read-only access to the tensors of a checkpoint, whatever it is stored as.

A checkpoint is one safetensors file, a folder of safetensors shards, a GGUF file, or a file of
``torch.save`` (``.pth``, ``.pt``, ``.bin``); which it is, is told by its content. Quantised files show
the names that a plain one has (``formats``). Opening reads headers; PyTorch is imported when the first
tensor is asked for, and for files of ``torch.save``, which have no header. All formats are memory-mapped,
so opening costs no memory. Knows nothing about models: what the names mean is the caller's business.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..facts.storages import StorageFacts
from .entry import Entry, plain_entry
from .formats import recognise
from .headers import FileKind, file_kind, read_header

if TYPE_CHECKING:
    import torch

    from ..quantisation.storage import Packed

_SHARDS = "diffusion_pytorch_model*.safetensors"


class Tensors:
    """The tensors of a checkpoint by name, read on demand onto the CPU."""

    def __init__(self, source: Path, entries: dict[str, Entry], metadata: dict[str, str] | None = None) -> None:
        self.source = source
        self.metadata = metadata or {}
        self._entries = entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> torch.Tensor:
        """The tensor, memory-mapped where the format allows it; float32 if it is quantised. Raises KeyError."""
        from .reading import values

        return values(self._entries[name])

    def packed(self, name: str) -> Packed:
        """The weight as the file keeps it; a plain one shares the file's memory."""
        from .reading import packed

        return packed(self._entries[name])

    def storage(self, name: str) -> StorageFacts | None:
        """How the file keeps it; None for what is no number to compute with (integers, bytes)."""
        return self._entries[name].storage

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """What the numbers are kept in, by PyTorch's name, such as "bfloat16"; for GGUF blocks "uint8"."""
        return self._entries[name].dtype

    def source_of(self, name: str) -> Path:
        """The file that the tensor is in."""
        return self._entries[name].numbers.source.path

    def numel(self) -> int:
        """Number of parameters in the whole checkpoint."""
        return sum(math.prod(entry.shape) for entry in self._entries.values())

    def renamed(self, rename: Callable[[str], str | None]) -> Tensors:
        """The same tensors under other names; those that ``rename`` maps to None are left out."""
        pairs = ((rename(name), entry) for name, entry in self._entries.items())
        return Tensors(self.source, {name: entry for name, entry in pairs if name is not None}, self.metadata)

    def without_prefix(self, *prefixes: str) -> Tensors:
        """Names with the first matching prefix removed; other names stay."""

        def strip(name: str) -> str:
            return next((name[len(p) :] for p in prefixes if name.startswith(p)), name)

        return self.renamed(strip)

    def under(self, prefix: str) -> Tensors:
        """Only the names with this prefix, without it."""
        return self.renamed(lambda name: name[len(prefix) :] if name.startswith(prefix) else None)

    def merged_with(self, other: Tensors) -> Tensors:
        """Both sets of tensors; ``other`` wins where a name is in both."""
        return Tensors(self.source, {**self._entries, **other._entries}, {**self.metadata, **other.metadata})

    def with_tensors(self, tensors: dict[str, torch.Tensor]) -> Tensors:
        """These tensors with some added or replaced from memory (a split or reshaped one, say)."""
        return self.merged_with(tensors_from_dict(tensors, self.source))


def tensors_from_dict(tensors: dict[str, torch.Tensor], source: str | Path = "memory") -> Tensors:
    """Wrap tensors that are in memory already."""
    from .reading import Memory

    source = Path(source)
    stored = Memory(tensors, source).stored()
    return Tensors(source, {name: plain_entry(tensor) for name, tensor in stored.items()})


def has_header(path: Path, what: str) -> bool:
    """Whether a file, or all shards in a folder, can be opened without PyTorch; true of what is not there.

    Args:
        what: see ``open_tensors``.

    Raises:
        InputError: unreadable, empty, or no weights file.
    """
    files = path.glob(_SHARDS) if path.is_dir() else (path,)
    return all(file_kind(file, what) is not FileKind.PICKLE for file in files if file.exists())


def open_tensors(path: str | Path, what: str, download: str | None = None) -> Tensors:
    """Open a checkpoint file, or a folder of ``diffusion_pytorch_model*.safetensors`` shards.

    Args:
        path: a safetensors file, a file of ``torch.save``, or a folder.
        what: what the file is to the user, for messages ("the Wan VAE (--vae)").
        download: the command that gets what a folder lacks.

    Raises:
        InputError: missing, empty, unreadable, a shard missing, or not a weights file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{what}: {path} does not exist. Check the path.")
    if path.is_dir():
        return _open_folder(path, what, f"Get them with: {download}" if download else "Download them.")
    entries, metadata = _entries(path, what)
    return Tensors(path, recognise(entries, path, metadata, what), metadata)


def _entries(path: Path, what: str) -> tuple[dict[str, Entry], dict[str, str]]:
    """Every tensor by its name in the file, and the texts of the file's header."""
    if file_kind(path, what) is FileKind.PICKLE:
        from .pickles import pickle_tensors

        stored, metadata = pickle_tensors(path, what), {}
    else:
        header = read_header(path, what)
        stored, metadata = header.tensors, header.metadata
    return {name: plain_entry(tensor) for name, tensor in stored.items()}, metadata


def _open_folder(folder: Path, what: str, advice: str) -> Tensors:
    shards = sorted(folder.glob(_SHARDS))
    if not shards:
        raise InputError(f"{what}: the folder {folder} holds no diffusion_pytorch_model*.safetensors. {advice}")
    _check_shard_count(shards, what, advice)
    entries: dict[str, Entry] = {}
    metadata: dict[str, str] = {}
    for shard in shards:
        more, texts = _entries(shard, what)
        entries.update(more)
        metadata.update(texts)
    return Tensors(folder, recognise(entries, folder, metadata, what), metadata)


def _check_shard_count(shards: list[Path], what: str, advice: str) -> None:
    """Names like ``...-00002-of-00007`` say how many there must be."""
    stem, _, total = shards[0].stem.rpartition("-of-")
    if not total.isdigit():
        return
    base = stem.rpartition("-")[0]
    expected = [f"{base}-{i:0{len(total)}d}-of-{total}.safetensors" for i in range(1, int(total) + 1)]
    present = {shard.name for shard in shards}
    missing = [name for name in expected if name not in present]
    if missing:
        raise InputError(f"{what}: {shards[0].parent} lacks {', '.join(missing)}. {advice}")
