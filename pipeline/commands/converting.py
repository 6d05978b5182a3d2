"""The transformer with 8-bit matrices, LoRAs fused, in one file that loads in seconds; for ``convert``.

The file holds base and audio layers together in the layout that ``checkpoints.comfy`` documents, so it serves as
--dit_path alone, or as --quant_dir. It is made tensor by tensor; no more than one is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from ..checkpoints.kinds import LORA_METADATA
from ..checkpoints.locate import TransformerFiles
from ..checkpoints.writing import Specs, converted_parts, converted_specs, write_safetensors
from ..models.transformer.files import HEADS_METADATA
from ..models.transformer.loading import store_matrix, with_lora
from ..models.transformer.matrices import TransformerWeights
from ..models.transformer.weights import open_weights
from ..planning.machine import choose_device
from ..planning.notices import stand_in_notices
from ..quantisation.codes import pack
from ..quantisation.matmul import WEIGHT_ONLY
from ..residency.staging import Staging
from ..run.progress import BlockLoaded, Finished, Loading, Notice, Progress
from ..settings.definition import Settings

FLOATS = torch.bfloat16


def convert(settings: Settings, files: TransformerFiles, path: Path, progress: Progress) -> Path:
    """Write the transformer of these settings, which is in ``files``, to ``path``, and return it.

    Raises:
        InputError: files do not fit, or the file cannot be written.
    """
    weights = open_weights(settings, files, WEIGHT_ONLY, FLOATS)
    for notice in stand_in_notices(settings.lora_dir, files.loras):
        progress(Notice(notice, warning=True))
    for notice in weights.notices:
        progress(Notice(notice))
    metadata = {"format": "pt", HEADS_METADATA: str(weights.config.num_heads)}
    if weights.fused:
        metadata[LORA_METADATA] = weights.fused
    progress(Loading(f"writing {path}"))
    write_safetensors(path, _specs(weights), _tensors(weights, choose_device(settings.device), progress), metadata)
    progress(Finished(path))
    return path


def _specs(weights: TransformerWeights) -> Specs:
    """Dtype and shape of everything that ``_tensors`` gives, in its order."""
    specs: Specs = {}
    for name, plan in weights.plans.items():
        specs |= converted_specs(name, plan.storage, weights.tensors.shape(name))
    return specs


def _tensors(
    weights: TransformerWeights, device: torch.device, progress: Progress
) -> Iterator[tuple[str, torch.Tensor]]:
    blocks, done, staging = weights.config.num_layers, 0, Staging(device)
    for name, plan in weights.plans.items():
        if plan.matrix:
            packed, _ = store_matrix(name, weights, staging)
        else:
            packed = pack(plan.storage, with_lora(name, weights.tensors[name], weights.loras))
        yield from converted_parts(name, packed).items()
        block = int(name.split(".")[1]) + 1 if name.startswith("blocks.") else done
        if block > done:
            done = block
            progress(BlockLoaded(done, blocks))
