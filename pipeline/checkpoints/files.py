"""Read-only access to the tensors of a checkpoint, whatever it is stored as.

A checkpoint is one safetensors file, a folder of safetensors shards, a GGUF file, or a file of
``torch.save`` (``.pth``, ``.pt``, ``.bin``); which it is, is told by its content. Quantised files show
the names that a plain one has (``formats``). Nothing is read until a tensor is asked for, and all
formats are memory-mapped, so opening costs no memory. Knows nothing about models: what the names
mean is the caller's business.
"""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from ..errors import InputError
from ..quantisation.storage import Packed, Storage
from .entry import Entry
from .formats import recognise
from .gguf_file import MAGIC, gguf_entries

SAFETENSORS_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"  # how files of torch.save begin, since 1.6 and before
_LFS_POINTER = b"version https://git-lfs"


class Tensors:
    """The tensors of a checkpoint by name, read on demand onto the CPU."""

    def __init__(self, source: Path, entries: dict[str, Entry], metadata: dict[str, str] | None = None) -> None:
        self.source = source
        self.metadata = metadata or {}
        self._entries = entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, name: str) -> torch.Tensor:
        """The tensor, memory-mapped where the format allows it; float32 if it is quantised. Raises KeyError."""
        return self._entries[name].read()

    def packed(self, name: str) -> Packed:
        """The weight as the file keeps it; a plain one shares the file's memory."""
        return self._entries[name].packed()

    def storage(self, name: str) -> Storage | None:
        """How the file keeps it; None for what is no number to compute with (integers, bytes)."""
        return self._entries[name].kept_as()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape

    def dtype(self, name: str) -> torch.dtype:
        return self._entries[name].dtype

    def source_of(self, name: str) -> Path:
        """The file that the tensor is in."""
        return self._entries[name].source

    def numel(self) -> int:
        """Number of parameters in the whole checkpoint."""
        return sum(torch.Size(entry.shape).numel() for entry in self._entries.values())

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
    source = Path(source)
    return Tensors(source, {k: Entry(tuple(v.shape), v.dtype, source, lambda v=v: v) for k, v in tensors.items()})


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
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        raise InputError(f"{what}: {path} cannot be read ({error.strerror}). Check the file.") from error
    if not start:
        raise InputError(f"{what}: {path} is empty (0 bytes). Download it again.")
    if start.startswith(MAGIC):  # first, since a tensor count like 1147 makes it look like safetensors
        return gguf_entries(path, what)
    if start[8:9] == b"{":  # after the header's length, whose first byte may be anything, a pickle's too
        return _safetensors_entries(path, what)
    if start.startswith((_ZIP, _PICKLE)):
        return _pickle_entries(path, what), {}
    if start.startswith(_LFS_POINTER):
        raise InputError(
            f"{what}: {path} is a Git LFS pointer, not the weights. Get them with hf download or git lfs pull."
        )
    raise InputError(
        f"{what}: {path} is neither a safetensors nor a PyTorch file nor GGUF (it begins with {_shown(start[:20])}). "
        "Check the path, or download it again."
    )


def _shown(start: bytes) -> str:
    return ascii(start.decode("latin-1"))


def _open_folder(folder: Path, what: str, advice: str) -> Tensors:
    shards = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
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


def _safetensors_entries(path: Path, what: str) -> tuple[dict[str, Entry], dict[str, str]]:
    try:
        handle = safe_open(path, framework="pt")
        header, metadata = _safetensors_header(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise InputError(f"{what}: {path} is a damaged or incomplete safetensors file. Download it again.") from error
    entries = {}
    for name, info in header.items():
        dtype = SAFETENSORS_DTYPES.get(info["dtype"])
        if dtype is None:
            raise InputError(f"{what}: {path} stores {name} as {info['dtype']}, which is not read here.")
        entries[name] = Entry(tuple(info["shape"]), dtype, path, lambda n=name: handle.get_tensor(n))
    return entries, metadata


def _safetensors_header(path: Path) -> tuple[dict[str, dict], dict[str, str]]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    metadata = header.pop("__metadata__", None) or {}
    return header, metadata


def _pickle_entries(path: Path, what: str) -> dict[str, Entry]:
    state = _load_pickle(path, what)
    for key in ("state_dict", "model_state", "module"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict):
        raise InputError(f"{what}: {path} holds a {type(state).__name__}, not named tensors.")
    tensors = {str(name): value for name, value in state.items() if isinstance(value, torch.Tensor)}
    return tensors_from_dict(tensors, path)._entries


def _load_pickle(path: Path, what: str) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the pickle's protocol
            try:
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            except RuntimeError:  # written before torch 1.6: no zip archive, cannot be memory-mapped
                return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{what}: {path} holds something other than plain tensors and was not executed. "
            "Use the .safetensors file of the same weights, or the publisher's original."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # damaged data makes the unpickler raise almost anything
        raise InputError(f"{what}: {path} is a damaged or incomplete PyTorch file. Download it again.") from error
