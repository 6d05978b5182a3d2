"""The transformer with 8-bit matrices, LoRAs fused, in one file that loads in seconds; for ``convert``.

The file holds base and audio layers together in the layout that ``checkpoints.comfy`` documents, so it serves as
--dit_path alone, or as --quant_dir. It is made tensor by tensor; no more than one is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from ..checkpoints.kinds import LORA_METADATA
from ..checkpoints.locate import TransformerFiles
from ..checkpoints.writing import Specs, converted_parts, write_safetensors
from ..models.transformer.block import TransformerConfig
from ..models.transformer.files import HEADS_METADATA, transformer_config, weight_dtype
from ..models.transformer.loading import is_matrix, keep_matrix, with_lora
from ..models.transformer.model import parameter_shapes
from ..models.transformer.weights import TransformerWeights, open_weights
from ..planning.machine import choose_device
from ..quantisation.codes import CODES
from ..quantisation.matmul import WEIGHT_ONLY
from ..quantisation.rowwise import FP8
from ..quantisation.storage import PLAIN, Packed, Storage
from ..run.progress import BlockLoaded, Finished, Loading, Notice, Progress
from ..settings.definition import Settings

FLOATS = torch.bfloat16
_DTYPES = {storage: dtype for dtype, storage in FP8.items()}


@dataclass(frozen=True)
class _Source:
    weights: TransformerWeights
    config: TransformerConfig
    shapes: dict[str, tuple[int, ...]]
    device: torch.device


def convert(settings: Settings, files: TransformerFiles, path: Path, progress: Progress) -> Path:
    """Write the transformer of these settings, which is in ``files``, to ``path``, and return it.

    Raises:
        InputError: files do not fit, or the file cannot be written.
    """
    weights = open_weights(settings, files, WEIGHT_ONLY, FLOATS)
    for notice in weights.notices:
        progress(Notice(notice))
    config = transformer_config(weights.tensors)
    source = _Source(weights, config, parameter_shapes(config), choose_device(settings.device))
    metadata = {"format": "pt", HEADS_METADATA: str(config.num_heads)}
    if weights.fused:
        metadata[LORA_METADATA] = weights.fused
    progress(Loading(f"writing {path}"))
    write_safetensors(path, _specs(source), _tensors(source, progress), metadata)
    progress(Finished(path))
    return path


def _specs(source: _Source) -> Specs:
    """Dtype and shape of everything that ``_tensors`` gives, in its order."""
    specs: Specs = {}
    for name, shape in source.shapes.items():
        for key, part in converted_parts(name, _planned(name, shape, source)).items():
            specs[key] = part.dtype, tuple(part.shape)
    return specs


def _planned(name: str, shape: tuple[int, ...], source: _Source) -> Packed:
    """A weight without numbers, as it will be kept."""
    tensors, keeping, loras = source.weights.tensors, source.weights.keeping, source.weights.loras
    if not is_matrix(name, tensors):
        return _plain(torch.empty(shape, dtype=weight_dtype(FLOATS, name), device="meta"))
    storage = keeping.storage(tensors.storage(name))
    if loras is not None and loras.touches(name):
        storage = keeping.pack(torch.zeros(1, 1), storage).storage.facts
    return _empty(CODES[storage], shape)


def _empty(storage: Storage, shape: tuple[int, ...]) -> Packed:
    parts = {
        "weight": torch.empty(shape, dtype=_DTYPES.get(storage, torch.int8), device="meta"),
        "scale": torch.empty(shape[:1], dtype=torch.float32, device="meta"),
    }
    return Packed(storage, parts, shape)


def _plain(tensor: torch.Tensor) -> Packed:
    return Packed(PLAIN[tensor.dtype], {"weight": tensor}, tuple(tensor.shape))


def _tensors(source: _Source, progress: Progress) -> Iterator[tuple[str, torch.Tensor]]:
    tensors, keeping, loras = source.weights.tensors, source.weights.keeping, source.weights.loras
    blocks, done = source.config.num_layers, 0
    for name in source.shapes:
        if is_matrix(name, tensors):
            packed, _ = keep_matrix(name, tensors.packed(name), loras, keeping, source.device)
        else:
            packed = _plain(with_lora(name, tensors[name], loras).to(weight_dtype(FLOATS, name)))
        yield from converted_parts(name, packed).items()
        block = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else done
        if block > done:
            done = block
            progress(BlockLoaded(done, blocks))
