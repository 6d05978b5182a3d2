"""``infinitetalk inspect FILE``: what a weights file is, where it fits, and what would be refused.

Reads headers only, and imports no PyTorch unless the file is one of ``torch.save``. Kinds are told by the names of
tensors, as when loading, never by the name of the file.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from ..checkpoints.files import Tensors, open_tensors
from ..checkpoints.kinds import LORA_METADATA, kind_of
from ..errors import InputError, printable
from ..facts.sizes import size_text
from ..lora import is_lora, lora_summary
from ..settings.flags import Parser
from .console import say

_PREFIX = "model.diffusion_model."


def parser() -> Parser:
    """The flags of the command."""
    found = Parser("infinitetalk inspect", "FILE ...", "What weights files are, where they fit, what would be refused.")
    found.add_argument("files", nargs="+", type=Path, metavar="FILE", help="weights or a LoRA; a folder of shards")
    return found


def run(args: argparse.Namespace) -> int:
    """Print what is known of each file.

    Raises:
        InputError: see ``inspect``.
    """
    say("\n\n".join(describe(inspect(path)) for path in args.files))
    return 0


def inspect(path: Path) -> list[tuple[str, str]]:
    """What is known of a file or a folder of shards, as pairs of a heading and a text.

    Raises:
        InputError: there is no such file.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    lines = [("file", f"{path} ({size_text(_size(path))})")]
    try:
        tensors = open_tensors(path, "inspect")
    except InputError as error:
        return [*lines, ("refused", str(error).removeprefix("inspect: "))]
    if is_lora(tensors):
        return [*lines, *lora_summary(tensors)]
    kind = kind_of(tensors)
    if kind is None:
        some = ", ".join(list(tensors)[:3]) or "nothing"
        return [*lines, ("is", f"nothing that is used here; it holds {some}")]
    lines += [("is", kind.what)]
    if kind.fits:
        lines += [("fits", kind.fits)]
    lines += [("parameters", f"{tensors.numel():,}"), ("kept as", _storages(tensors)), *_transformer_sizes(tensors)]
    if LORA_METADATA in tensors.metadata:
        lines += [("fused in", tensors.metadata[LORA_METADATA])]
    if kind.refused:
        lines += [("refused", kind.refused)]
    return lines


def describe(lines: list[tuple[str, str]]) -> str:
    """The pairs as lines of text."""
    return "\n".join(f"{heading:<12}{printable(text)}" for heading, text in lines)


def _size(path: Path) -> int:
    files = path.glob("*.safetensors") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files)


def _storages(tensors: Tensors) -> str:
    """How many parameters are kept in what, most first."""
    numbers: dict[str, int] = {}
    for name in tensors:
        storage = tensors.storage(name)
        storage_name = storage.name if storage is not None else tensors.dtype(name)
        numbers[storage_name] = numbers.get(storage_name, 0) + _numel(tensors, name)
    total = sum(numbers.values())
    shares = sorted(numbers.items(), key=lambda item: -item[1])
    return ", ".join(f"{100 * number / total:.3g} % {storage_name}" for storage_name, number in shares)


def _numel(tensors: Tensors, name: str) -> int:
    number = 1
    for size in tensors.shape(name):
        number *= size
    return number


def _transformer_sizes(tensors: Tensors) -> list[tuple[str, str]]:
    tensors = tensors.without_prefix(_PREFIX)
    numbers = [int(found[1]) for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))]
    width = "blocks.0.self_attn.q.weight"
    if not numbers or width not in tensors:
        return []
    return [("size", f"{max(numbers) + 1} blocks of width {tensors.shape(width)[0]}")]
