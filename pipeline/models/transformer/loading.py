"""Loading the transformer: each matrix is read, changed by LoRAs, and kept as planned, block by block.

The work is done on the device that computes, one matrix at a time, and never more than one block is
held beyond the weights themselves. Knows no settings and no file formats, and decides nothing (``matrices`` does).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from ...checkpoints.load import fill
from ...checkpoints.reading import torch_dtype
from ...lora import Loras
from ...quantisation.codes import CODES, pack
from ...quantisation.storage import Packed
from ...residency.staging import Staging
from .block import Operations
from .blocks import TransformerBlocks
from .files import BASE
from .linear import Linear
from .matrices import LoraPlace, TransformerWeights
from .model import WanTransformer


def store_matrix(
    name: str, weights: TransformerWeights, staging: Staging
) -> tuple[Packed, tuple[torch.Tensor, torch.Tensor] | None]:
    """One matrix as it is to be kept, and the LoRA that runs beside it: ``down`` [r, in] and ``up`` [out, r].

    Args:
        name: of the parameter in the whole model.
        staging: brings what has to be computed with to the device that computes.
    """
    plan, loras, packed = weights.plans[name], weights.loras, weights.tensors.packed(name)
    device = staging.device
    if plan.made:
        on_device = {part: staging.to_device(tensor) for part, tensor in packed.parts.items()}
        matrix = replace(packed, parts=on_device).unpacked()
        if loras is not None and plan.lora is LoraPlace.FUSED:
            matrix = matrix.float() + loras.delta(name, device)
        packed = pack(plan.storage, matrix)
    beside = loras is not None and plan.lora is LoraPlace.BESIDE
    return packed, loras.branch(name, device, weights.request.dtype) if loras is not None and beside else None


def with_lora(name: str, tensor: torch.Tensor, loras: Loras | None) -> torch.Tensor:
    """A parameter that is kept in floats, changed by the LoRAs that touch it (float32 then)."""
    if loras is None or not loras.touches(name):
        return tensor
    return tensor.float() + loras.delta(name, tensor.device)


def load_transformer(
    weights: TransformerWeights,
    operations: Operations,
    blocks: TransformerBlocks,
    loaded: Callable[[int, int], None] = lambda done, count: None,
) -> WanTransformer:
    """Build the transformer and fill it, handing each block to ``blocks`` as soon as it is read.

    Everything that is not a block lives on their device. A block's matrices are handed over on the CPU if they are
    kept as the file has them, mapped from it, and else on the device, where they were made.

    Args:
        loaded: hears how many of how many blocks are there.
    """
    config, tensors, plans = weights.config, weights.tensors, weights.plans
    with torch.device("meta"):
        model = WanTransformer(config, operations)

    def changed(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return with_lora(name, tensor, weights.loras)

    def stored_as(name: str) -> torch.dtype:
        return torch_dtype(plans[name].storage.dtype)

    device = blocks.device
    fill(model, tensors, BASE, dtype=stored_as, device=device, skip=lambda n: n.startswith("blocks."), change=changed)

    def fill_block(block: nn.Module, prefix: str) -> None:
        layers = {f"{name}.weight": layer for name, layer in block.named_modules() if isinstance(layer, Linear)}
        fill(
            block,
            tensors.under(prefix),
            BASE,
            dtype=lambda name: stored_as(prefix + name),
            device=device,
            skip=layers.__contains__,
            change=lambda name, tensor: changed(prefix + name, tensor),
        )
        for name, layer in layers.items():
            packed, branch = store_matrix(prefix + name, weights, blocks.staging)
            layer.store(packed, operations.matmuls.of(CODES[plans[prefix + name].storage]), branch)

    for index, block in enumerate(model.blocks):
        fill_block(block, f"blocks.{index}.")
        blocks.add(block)
        loaded(index + 1, config.num_layers)
    blocks.end_loading()
    return model.eval().requires_grad_(False)
