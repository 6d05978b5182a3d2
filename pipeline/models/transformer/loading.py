"""Loading the transformer: each matrix is read, changed by LoRAs, and kept as asked, block by block.

The work is done on the device that computes, one matrix at a time, and never more than one block is
held beyond the weights themselves. Knows no settings and no file formats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from ...checkpoints.files import Tensors
from ...checkpoints.load import fill
from ...errors import InputError
from ...facts import storages
from ...facts.storages import StorageFacts
from ...lora import Loras
from ...quantisation.codes import CODES
from ...quantisation.rowwise import pack_fp8, pack_int8
from ...quantisation.storage import PLAIN, Packed, Requantise, SideBranch
from .block import Operations
from .blocks import TransformerBlocks, is_context_layer
from .files import BASE, check_parts, transformer_config, weight_dtype
from .linear import Linear
from .matrices import TransformerSize
from .model import WanTransformer, parameter_shapes

QUANTISERS: dict[str, tuple[Callable[[torch.Tensor], Packed], tuple[StorageFacts, ...]]] = {
    "fp8": (pack_fp8, storages.choices()["fp8"]),
    "int8": (pack_int8, storages.choices()["int8"]),
}


@dataclass(frozen=True)
class Keeping:
    """How the matrices of the blocks are kept.

    Everything else (biases, norms, modulation, embeddings, head, ``audio_proj``) is kept in floats always:
    it is 2 % of the parameters.

    Attributes:
        dtype: of what is kept in floats, and of the activations.
        quant: "fp8" or "int8" for all matrices, None for as the file has them.
        lora_mode: "fuse", "side", or "auto": fused unless the storage cannot be written again.
    """

    dtype: torch.dtype
    quant: str | None = None
    lora_mode: str = "auto"

    def storage(self, storage: StorageFacts) -> StorageFacts:
        """What a matrix that the file keeps in ``storage`` is kept in, as long as no LoRA is fused into it."""
        if self.quant is not None:
            _, same = QUANTISERS[self.quant]
            return storage if storage in same else same[0]
        return storage if storage.quantised else PLAIN[self.dtype].facts

    def beside(self, storage: StorageFacts) -> bool:
        """Whether a LoRA runs beside a matrix that the file keeps in ``storage``."""
        cannot_fuse = self.quant is None and isinstance(CODES[storage].fuse, SideBranch)
        return self.lora_mode == "side" or (self.lora_mode == "auto" and cannot_fuse)

    def pack(self, matrix: torch.Tensor, storage: StorageFacts) -> Packed:
        """Store a changed matrix [out, in] that the file keeps in ``storage``."""
        fuse = CODES[self.storage(storage)].fuse
        return (fuse if isinstance(fuse, Requantise) else PLAIN[self.dtype].fuse).pack(matrix)


def check_fusing(tensors: Tensors, loras: Loras | None, keeping: Keeping) -> None:
    """Raise an InputError if a LoRA is to be fused into a matrix that cannot be written again."""
    if loras is None or keeping.lora_mode != "fuse" or keeping.quant is not None:
        return
    for name in tensors:
        storage = tensors.storage(name)
        fuse = None if storage is None else CODES[storage].fuse
        if storage is not None and isinstance(fuse, SideBranch) and loras.touches(name):
            raise InputError(
                f"--lora_mode fuse: {tensors.source_of(name)} keeps {name} as {storage.name}: {fuse.reason}. "
                "Leave --lora_mode out, or give --quant fp8 or int8."
            )


def keep_matrix(
    name: str, packed: Packed, loras: Loras | None, keeping: Keeping, device: torch.device
) -> tuple[Packed, tuple[torch.Tensor, torch.Tensor] | None]:
    """One matrix as it is to be kept, and the LoRA that runs beside it.

    Args:
        name: of the parameter in the whole model.
        packed: as the file has it.
        device: where to compute what has to be computed.
    """
    touched = loras is not None and loras.touches(name)
    # A full difference has no two factors, so its layer is fused whatever the mode; one that cannot be
    # written again is kept in floats then.
    beside = touched and keeping.beside(packed.storage.facts) and not loras.has_dense(name)
    if touched and not beside:
        matrix = packed.to(device).unpacked().float() + loras.delta(name, device)
        return keeping.pack(matrix, packed.storage.facts), None
    if keeping.storage(packed.storage.facts) is not packed.storage.facts:
        packed = keeping.pack(packed.to(device).unpacked(), packed.storage.facts)
    return packed, loras.branch(name, device, keeping.dtype) if beside else None


def made_while_loading(tensors: Tensors, loras: Loras | None, keeping: Keeping) -> bool:
    """Whether some matrices are not kept as the file has them, so that they cannot stay in it."""

    def made(name: str) -> bool:
        storage = tensors.storage(name)
        fused = loras is not None and loras.touches(name) and (not keeping.beside(storage) or loras.has_dense(name))
        return fused or keeping.storage(storage) is not storage

    return any(made(name) for name in tensors if is_matrix(name, tensors))


def with_lora(name: str, tensor: torch.Tensor, loras: Loras | None) -> torch.Tensor:
    """A parameter that is kept in floats, changed by the LoRAs that touch it (float32 then)."""
    if loras is None or not loras.touches(name):
        return tensor
    return tensor.float() + loras.delta(name, tensor.device)


def transformer_size(tensors: Tensors, loras: Loras | None, keeping: Keeping) -> TransformerSize:
    """Sizes of the transformer that these tensors are of, kept so."""
    config = transformer_config(tensors)
    kept = {name: _kept_bytes(name, tensors, loras, keeping) for name in tensors}
    in_blocks = sum(size for name, size in kept.items() if name.startswith("blocks."))
    contexts = sum(size for name, size in kept.items() if is_context_layer(name))
    block_parameters = tensors.under("blocks.0.").numel()
    quantised = any(keeping.storage(tensors.storage(n)).quantised for n in tensors if is_matrix(n, tensors))
    return TransformerSize(
        blocks=config.num_layers,
        block_parameters=block_parameters,
        other_parameters=tensors.numel() - config.num_layers * block_parameters,
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        block_bytes=(in_blocks - contexts) // config.num_layers,
        context_bytes=contexts // config.num_layers,
        other_bytes=sum(kept.values()) - in_blocks,
        scratch=config.dim * config.ffn_dim * keeping.dtype.itemsize if quantised else 0,
    )


def is_matrix(name: str, tensors: Tensors) -> bool:
    """Whether this is the weight of a ``Linear``: a matrix in a block."""
    return name.startswith("blocks.") and name.endswith(".weight") and len(tensors.shape(name)) == 2


def _kept_bytes(name: str, tensors: Tensors, loras: Loras | None, keeping: Keeping) -> int:
    shape = tensors.shape(name)
    if not is_matrix(name, tensors):
        return math.prod(shape) * weight_dtype(keeping.dtype, name).itemsize
    storage = tensors.storage(name)
    size = math.ceil(math.prod(shape) * keeping.storage(storage).bits / 8)
    if loras is not None and keeping.beside(storage):
        size += loras.rank(name) * sum(shape) * keeping.dtype.itemsize
    return size


def load_transformer(
    tensors: Tensors,
    operations: Operations,
    keeping: Keeping,
    blocks: TransformerBlocks,
    loras: Loras | None = None,
    loaded: Callable[[int, int], None] = lambda done, count: None,
) -> WanTransformer:
    """Build the transformer and fill it, handing each block to ``blocks`` as soon as it is read.

    Everything that is not a block lives on their device. A block's matrices are handed over on the CPU if they are
    kept as the file has them, mapped from it, and else on the device, where they were made.

    Args:
        loaded: hears how many of how many blocks are there.
    """
    config = transformer_config(tensors)
    check_parts(parameter_shapes(config), tensors)
    with torch.device("meta"):
        model = WanTransformer(config, operations)

    def changed(name: str, tensor: torch.Tensor) -> torch.Tensor:
        return with_lora(name, tensor, loras)

    def stored_as(name: str) -> torch.dtype:
        return weight_dtype(keeping.dtype, name)

    device = blocks.device
    fill(model, tensors, BASE, dtype=stored_as, device=device, skip=lambda n: n.startswith("blocks."), change=changed)
    for index, block in enumerate(model.blocks):
        prefix = f"blocks.{index}."
        layers = {f"{name}.weight": layer for name, layer in block.named_modules() if isinstance(layer, Linear)}
        fill(
            block,
            tensors.under(prefix),
            BASE,
            dtype=stored_as,
            device=device,
            skip=layers.__contains__,
            change=lambda name, tensor, prefix=prefix: changed(prefix + name, tensor),
        )
        for name, layer in layers.items():
            packed, branch = keep_matrix(prefix + name, tensors.packed(prefix + name), loras, keeping, device)
            layer.keep(packed, operations.matmuls.of(packed.storage), branch)
        blocks.add(block)
        loaded(index + 1, config.num_layers)
    return model.eval().requires_grad_(False)
