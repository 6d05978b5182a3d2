"""The fate of every weight, decided once: how it is kept and multiplied, what becomes of LoRAs, how many bytes that is.

Loading, planning, ``convert`` and the notices read the plan. It is made from headers; no weights are read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import torch

from ...checkpoints.files import Tensors
from ...checkpoints.reading import dtype_name
from ...errors import InputError
from ...facts.storages import BY_NAME, FLOATS, StorageFacts, choices
from ...lora import Loras
from ...quantisation.codes import CODES
from ...quantisation.matmul import Matmuls, Multiply
from ...quantisation.storage import SideBranch
from .block import TransformerConfig
from .blocks import is_context_layer
from .files import check_parts, transformer_config, weight_dtype
from .model import parameter_shapes


@dataclass(frozen=True)
class StorageRequest:
    """How the matrices of the blocks are asked to be kept.

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


class LoraPlace(Enum):
    """What becomes of the LoRAs that touch a weight."""

    NONE = "none"
    FUSED = "fused"
    BESIDE = "beside"


@dataclass(frozen=True)
class MatrixPlan:
    """The fate of one weight.

    Attributes:
        matrix: whether it is the matrix of a linear layer in a block; all else is kept in floats.
        storage: how it is kept.
        made: whether it is made while loading; else the file has it so, and it may stay there.
        lora: what becomes of LoRAs.
        product: the name of the way in which a matrix is multiplied.
        reason: why so, for people.
        bytes: that it takes, with scales and what runs beside it.
    """

    matrix: bool
    storage: StorageFacts
    made: bool
    lora: LoraPlace
    product: str
    reason: str
    bytes: int


@dataclass(frozen=True)
class TransformerSize:
    """Sizes that memory depends on; parameters are counted, widths are channels.

    Attributes:
        block_bytes: of what a step needs of one block, as it is kept.
        context_bytes: of the rest of it, which makes keys and values of text and image.
        other_bytes: of everything but the blocks.
        scratch: for reading a quantised matrix back.
        shares: the cards among which the blocks are divided; 1 where each keeps all.
    """

    blocks: int
    block_parameters: int
    other_parameters: int
    dim: int
    ffn_dim: int
    block_bytes: int
    context_bytes: int
    other_bytes: int
    scratch: int
    shares: int = 1


@dataclass(frozen=True)
class TransformerWeights:
    """Everything that loading needs; nothing is read yet.

    Attributes:
        plans: of every weight, by its name.
        fused: names and strengths of all LoRAs, also of those that the file already holds.
        notices: sentences for the user, such as what the LoRAs touch.
    """

    tensors: Tensors
    loras: Loras | None
    request: StorageRequest
    config: TransformerConfig
    plans: dict[str, MatrixPlan]
    fused: str = ""
    notices: tuple[str, ...] = ()

    @property
    def made(self) -> bool:
        """Whether some matrices are made while loading, by LoRAs or by being stored anew."""
        return any(plan.made for plan in self.plans.values() if plan.matrix)

    @property
    def products(self) -> str:
        """Names of the ways in which matrices are multiplied."""
        return ", ".join(sorted({plan.product for plan in self.plans.values() if plan.matrix}))

    @cached_property
    def size(self) -> TransformerSize:
        """What memory depends on."""
        config, plans = self.config, self.plans
        in_blocks = [name for name in plans if name.startswith("blocks.")]
        contexts = sum(plans[name].bytes for name in in_blocks if is_context_layer(name))
        block_bytes = sum(plans[name].bytes for name in in_blocks)
        block_parameters = self.tensors.under("blocks.0.").numel()
        quantised = any(plan.storage.quantised for plan in plans.values())
        return TransformerSize(
            blocks=config.num_layers,
            block_parameters=block_parameters,
            other_parameters=self.tensors.numel() - config.num_layers * block_parameters,
            dim=config.dim,
            ffn_dim=config.ffn_dim,
            block_bytes=(block_bytes - contexts) // config.num_layers,
            context_bytes=contexts // config.num_layers,
            other_bytes=sum(plan.bytes for plan in plans.values()) - block_bytes,
            scratch=config.dim * config.ffn_dim * self.request.dtype.itemsize if quantised else 0,
        )


def plan_weights(
    tensors: Tensors, request: StorageRequest, matmuls: Matmuls, loras: Loras | None = None
) -> TransformerWeights:
    """The fate of every weight of the transformer that these tensors are of.

    Raises:
        InputError: a weight is missing or of another shape, a LoRA cannot be fused, or products are asked for that
            this device does not have.
    """
    config = transformer_config(tensors)
    shapes = parameter_shapes(config)
    check_parts(shapes, tensors)
    _check_fusing(tensors, loras, request)
    ways: dict[StorageFacts, Multiply] = {}
    plans = {}
    for name, shape in shapes.items():
        storage, made, place = plan_storage(name, tensors, loras, request)
        if storage not in ways:
            ways[storage] = matmuls.of(CODES[storage])
        size = storage.bytes(shape)
        if loras is not None and place is LoraPlace.BESIDE:
            size += loras.rank(name) * sum(shape) * request.dtype.itemsize
        way, matrix = ways[storage], is_matrix(name, tensors)
        plans[name] = MatrixPlan(matrix, storage, made, place, way.name, way.reason, size)
    return TransformerWeights(tensors, loras, request, config, plans)


def plan_storage(
    name: str, tensors: Tensors, loras: Loras | None, request: StorageRequest
) -> tuple[StorageFacts, bool, LoraPlace]:
    """How a weight is kept, whether it is made while loading, and what becomes of LoRAs."""
    found, touched = tensors.storage(name), loras is not None and loras.touches(name)
    if found is None or not is_matrix(name, tensors):
        storage = FLOATS[dtype_name(weight_dtype(request.dtype, name))]
        return storage, touched or found is not storage, LoraPlace.FUSED if touched else LoraPlace.NONE
    asked = found if found.quantised else FLOATS[dtype_name(request.dtype)]
    if request.quant is not None:
        same = choices()[request.quant]
        asked = found if found in same else same[0]
    if loras is None or not touched:
        return asked, asked is not found, LoraPlace.NONE
    cannot_fuse = request.quant is None and found.again is None
    beside = request.lora_mode == "side" or (request.lora_mode == "auto" and cannot_fuse)
    # A full difference has no two factors, so its layer is fused whatever the mode.
    if beside and not loras.has_dense(name):
        return asked, asked is not found, LoraPlace.BESIDE
    # What cannot be written again is kept in floats then.
    storage = FLOATS[dtype_name(request.dtype)] if asked.again is None else BY_NAME[asked.again]
    return storage, True, LoraPlace.FUSED


def is_matrix(name: str, tensors: Tensors) -> bool:
    """Whether this is the weight of a ``Linear``: a matrix in a block."""
    return name.startswith("blocks.") and name.endswith(".weight") and len(tensors.shape(name)) == 2


def _check_fusing(tensors: Tensors, loras: Loras | None, request: StorageRequest) -> None:
    """Raise an InputError if a LoRA is to be fused into a matrix that cannot be written again."""
    if loras is None or request.lora_mode != "fuse" or request.quant is not None:
        return
    for name in tensors:
        storage = tensors.storage(name)
        fuse = None if storage is None else CODES[storage].fuse
        if storage is not None and isinstance(fuse, SideBranch) and loras.touches(name):
            raise InputError(
                f"--lora_mode fuse: {tensors.source_of(name)} keeps {name} as {storage.name}: {fuse.reason}. "
                "Leave --lora_mode out, or give --quant fp8 or int8."
            )
