"""Writing a safetensors file tensor by tensor, so that it may be larger than memory, and a converted weight's tensors.

The safetensors library wants all tensors at once. The format (huggingface/safetensors, README): the header's
length as a 64-bit little-endian number, the header in JSON, then the tensors' bytes back to back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import torch

from ..errors import InputError
from ..facts.storages import INT8, StorageFacts
from ..quantisation.storage import Packed
from .headers import SAFETENSORS_DTYPES
from .reading import dtype_name, torch_dtype

_NAMES = {dtype: name for name, (dtype, _) in SAFETENSORS_DTYPES.items()}
_ALIGNMENT = 8

Specs = dict[str, tuple[torch.dtype, tuple[int, ...]]]


def write_safetensors(
    path: Path, specs: Specs, tensors: Iterable[tuple[str, torch.Tensor]], metadata: dict[str, str]
) -> None:
    """Write a file; it gets its name only when it is whole.

    Args:
        specs: dtype and shape of every tensor, in the order of the file.
        tensors: the tensors, in that order.

    Raises:
        InputError: the disk is full or cannot be written.
        ValueError: a tensor is not what ``specs`` says.
    """
    header: dict[str, object] = {"__metadata__": metadata}
    start = 0
    for name, (dtype, shape) in specs.items():
        size = torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype_name(dtype)], "shape": list(shape), "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for (name, tensor), (expected, spec) in zip(tensors, specs.items(), strict=True):
                if (name, tensor.dtype, tuple(tensor.shape)) != (expected, *spec):
                    raise ValueError(f"{name} {tensor.dtype} {list(tensor.shape)} does not follow the plan")
                file.write(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {path} ({error.strerror}): free some space or give another name.") from error
    finally:
        temporary.unlink(missing_ok=True)


def converted_specs(name: str, storage: StorageFacts, shape: tuple[int, ...]) -> Specs:
    """Dtypes and shapes of what ``converted_parts`` gives for such a weight.

    Raises:
        ValueError: the storage has no place in this layout (GGUF's blocks).
    """
    weight = {name: (torch_dtype(storage.dtype), shape)}
    if not storage.quantised:
        return weight
    layer, description = name.removesuffix(".weight"), _description(storage)
    return {
        **weight,
        f"{layer}.weight_scale": (torch.float32, (shape[0], 1) if storage is INT8 else shape[:1]),
        f"{layer}.comfy_quant": (torch.uint8, (len(description),)),
    }


def converted_parts(name: str, packed: Packed) -> dict[str, torch.Tensor]:
    """A weight as a converted file holds it: plain floats as they are, or the three tensors that ``comfy`` tells of.

    Args:
        name: of the weight, ``X.weight``.

    Raises:
        ValueError: the storage has no place in this layout (GGUF's blocks).
    """
    storage = packed.storage.facts
    if not storage.quantised:
        return {name: packed.parts["weight"]}
    parts = converted_specs(name, storage, packed.shape)
    tensors = (
        packed.parts["weight"],
        packed.parts["scale"],
        torch.tensor(list(_description(storage)), dtype=torch.uint8),
    )
    return {key: tensor.view(shape) for (key, (_, shape)), tensor in zip(parts.items(), tensors, strict=True)}


def _description(storage: StorageFacts) -> bytes:
    if storage.written is None:
        raise ValueError(f"{storage.name} is not written")
    return json.dumps({"format": storage.written}).encode()
