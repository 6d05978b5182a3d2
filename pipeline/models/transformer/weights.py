"""The transformer's weights as the settings ask for them: which tensors, which LoRAs, how kept and multiplied.

Opens files and reads headers; loading is for ``models.transformer.loading``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import torch

from ...checkpoints.files import Tensors
from ...checkpoints.kinds import LORA_METADATA
from ...checkpoints.locate import TransformerFiles
from ...errors import InputError
from ...facts.storages import choices
from ...lora import open_loras
from ...quantisation.matmul import Matmuls
from ...settings.definition import Settings
from .files import holds_audio, multitalk_notice, open_transformer, transformer_config
from .matrices import MatrixPlan, StorageRequest, TransformerWeights, is_matrix, plan_weights
from .model import parameter_shapes


def open_weights(
    settings: Settings, files: TransformerFiles, matmuls: Matmuls, dtype: torch.dtype
) -> TransformerWeights:
    """Open the files of the transformer and its LoRAs.

    Args:
        matmuls: how matrices are multiplied.
        dtype: of what is kept in floats.

    Raises:
        InputError: files missing, of another kind, a LoRA that does not fit, or settings that ask for what
            these files or this device cannot give.
    """
    whole = settings.quant_dir is not None
    tensors = open_transformer(files.base, files.infinitetalk, whole)
    if whole and settings.quant is not None:
        _check_quant_dir(tensors, files, settings.quant)
    loras = None
    if files.loras:
        shapes = parameter_shapes(transformer_config(tensors))
        loras = open_loras(files.loras, settings.lora_scale, shapes, settings.lora_ignore_unmatched)
    request = StorageRequest(dtype, settings.quant, settings.lora_mode)
    weights = plan_weights(tensors, request, matmuls, loras)
    matrices = [plan for plan in weights.plans.values() if plan.matrix]
    if settings.quant_matmul == "on" and not any(plan.storage.quantised for plan in matrices):
        raise InputError("--quant_matmul on: no matrix is kept in 8 bits; give --quant fp8 or int8, or leave it out.")
    inside = tensors.metadata.get(LORA_METADATA, "")
    given = ", ".join(f"{path.name} ({scale:g})" for path, scale in zip(files.loras, settings.lora_scale, strict=False))
    notices = [*_storage_notice(matrices), *(loras.describe() if loras else ()), *_audio_notice(files, whole)]
    if inside:
        again = " and gets what --lora_dir gives on top" if given else ""
        notices.append(f"{files.base} holds fused LoRAs already: {inside}{again}.")
    return replace(weights, fused=", ".join(filter(None, (inside, given))), notices=tuple(notices))


def _check_quant_dir(tensors: Tensors, files: TransformerFiles, quant: str) -> None:
    found = Counter(tensors.storage(name) for name in tensors if is_matrix(name, tensors))
    if not any(storage in found for storage in choices()[quant]):
        storages = next((storage.name for storage, _ in found.most_common() if storage is not None), "nothing")
        raise InputError(
            f"--quant_dir: {files.base} keeps its matrices as {storages}, but --quant says {quant}; give the file "
            f"of {quant}, or the file with --dit_path and no --quant_dir to convert it while loading."
        )


def _audio_notice(files: TransformerFiles, whole: bool) -> tuple[str, ...]:
    """That a single file's own audio layers give way to those of --infinitetalk_dir, or that these are MultiTalk's."""
    if files.infinitetalk is None or (whole and holds_audio(files.base)):
        return ()
    multitalk = multitalk_notice(files.infinitetalk)
    if multitalk is not None:
        return (multitalk,)
    if files.base.is_dir() or not holds_audio(files.base):
        return ()
    return (
        f"{files.base} holds audio layers too, but those of --infinitetalk_dir are used; leave it out to use them.",
    )


def _storage_notice(matrices: list[MatrixPlan]) -> tuple[str, ...]:
    """How the matrices are kept and multiplied, if not in plain floats."""
    counts = Counter(plan.storage for plan in matrices).most_common()
    if not any(storage.quantised for storage, _ in counts):
        return ()
    ways = {plan.storage: f"{plan.product}, {plan.reason}" for plan in matrices if plan.storage.quantised}
    storages = ", ".join(f"{count} in {storage.name}" for storage, count in counts)
    how = "; ".join(dict.fromkeys(ways[storage] for storage, _ in counts if storage in ways))
    return (f"matrices of the blocks: {storages}; products: {how}",)
