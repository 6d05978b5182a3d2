"""Quantised checkpoints under the names of plain ones: scales, markers and maps are folded into the weights.

Formats are told by names and dtypes of tensors, never by names of files: quanto (``quanto``), ComfyUI's scaled
and mixed files, lightx2v's and the engine's own (``comfy``), and plain fp8, which has no scales. Nothing is read
but markers of some bytes, and PyTorch is not needed. Knows no models.
"""

from __future__ import annotations

from pathlib import Path

from ..facts.storages import ROW_SCALED
from .comfy import read_scaled
from .entry import Entry
from .quanto import is_quanto, read_quanto
from .scaled import scaled


def recognise(entries: dict[str, Entry], path: Path, metadata: dict[str, str], what: str) -> dict[str, Entry]:
    """The tensors of one file by logical names.

    Args:
        entries: every tensor of the file by the names in it.
        path: the file, beside which a side-car map may lie.
        metadata: the header's texts by name.
        what: what the file is to the user, for messages.

    Raises:
        InputError: an unknown way of quantising, or scales or a map are missing.
    """
    if is_quanto(entries):
        entries = read_quanto(entries, path, metadata, what)
    entries = read_scaled(entries, path, metadata, what)
    return {name: scaled(entry) if _is_plain_fp8(entry) else entry for name, entry in entries.items()}


def _is_plain_fp8(entry: Entry) -> bool:
    return entry.storage is None and entry.dtype in ROW_SCALED and entry.dtype.startswith("float8")
