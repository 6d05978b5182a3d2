"""The transformer's weights as the settings ask for them: which tensors, which LoRAs, how kept and multiplied.

Opens files and reads headers; loading is for ``models.transformer.loading``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ...checkpoints.files import Tensors
from ...checkpoints.kinds import LORA_METADATA
from ...checkpoints.locate import TransformerFiles
from ...errors import InputError
from ...facts.storages import StorageFacts
from ...lora import Loras, open_loras
from ...quantisation.codes import CODES
from ...quantisation.matmul import Matmuls
from ...settings.definition import Settings
from .files import holds_audio, multitalk_notice, open_transformer, transformer_config
from .loading import QUANTISERS, Keeping, check_fusing, is_matrix, made_while_loading, transformer_size
from .matrices import TransformerSize
from .model import parameter_shapes


@dataclass(frozen=True)
class TransformerWeights:
    """Everything that loading needs; nothing is read yet.

    Attributes:
        fused: names and strengths of all LoRAs, also of those that the file already holds.
        made: whether some matrices are made while loading, by LoRAs or by being stored anew.
        products: names of the ways in which matrices are multiplied.
        notices: sentences for the user, such as what the LoRAs touch.
    """

    tensors: Tensors
    loras: Loras | None
    keeping: Keeping
    size: TransformerSize
    fused: str
    made: bool
    products: str
    notices: tuple[str, ...]


def open_weights(
    settings: Settings, files: TransformerFiles, matmuls: Matmuls, dtype: torch.dtype
) -> TransformerWeights:
    """Open the files of the transformer and its LoRAs.

    Args:
        matmuls: for the notice that says how matrices are multiplied.
        dtype: of what is kept in floats.

    Raises:
        InputError: files missing, of another kind, a LoRA that does not fit, or settings that ask for what
            these files or this device cannot give.
    """
    whole = settings.quant_dir is not None
    tensors = open_transformer(files.base, files.infinitetalk, whole)
    if whole:
        _check_quant_dir(tensors, files, settings.quant)
    keeping = Keeping(dtype, settings.quant, settings.lora_mode)
    loras = None
    if files.loras:
        shapes = parameter_shapes(transformer_config(tensors))
        loras = open_loras(files.loras, settings.lora_scale, shapes, settings.lora_ignore_unmatched)
        check_fusing(tensors, loras, keeping)
    inside = tensors.metadata.get(LORA_METADATA, "")
    given = ", ".join(f"{path.name} ({scale:g})" for path, scale in zip(files.loras, settings.lora_scale, strict=False))
    found = _storages(tensors, keeping)
    if settings.quant_matmul == "on" and not any(storage.quantised for storage in found):
        raise InputError("--quant_matmul on: no matrix is kept in 8 bits; give --quant fp8 or int8, or leave it out.")
    notices = [*_kept_notice(found, matmuls), *(loras.describe() if loras else ()), *_audio_notice(files, whole)]
    if inside:
        again = " and gets what --lora_dir gives on top" if given else ""
        notices.append(f"{files.base} holds fused LoRAs already: {inside}{again}.")
    return TransformerWeights(
        tensors,
        loras,
        keeping,
        transformer_size(tensors, loras, keeping),
        ", ".join(filter(None, (inside, given))),
        made_while_loading(tensors, loras, keeping),
        ", ".join(sorted({matmuls.of(CODES[storage]).name for storage in found})),
        tuple(notices),
    )


def _storages(tensors: Tensors, keeping: Keeping) -> dict[StorageFacts, int]:
    """How many matrices are kept in what, the most first."""
    counts: dict[StorageFacts, int] = {}
    for name in tensors:
        if is_matrix(name, tensors):
            storage = keeping.storage(tensors.storage(name))
            counts[storage] = counts.get(storage, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))


def _check_quant_dir(tensors: Tensors, files: TransformerFiles, quant: str) -> None:
    found = _storages(tensors, Keeping(torch.float32))
    if not any(storage in QUANTISERS[quant][1] for storage in found):
        kept = next(iter(found)).name
        raise InputError(
            f"--quant_dir: {files.base} keeps its matrices as {kept}, but --quant says {quant}; give the file "
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


def _kept_notice(found: dict[StorageFacts, int], matmuls: Matmuls) -> tuple[str, ...]:
    """How the matrices are kept and multiplied, if not in plain floats."""
    if not any(storage.quantised for storage in found):
        return ()
    ways = {storage: matmuls.of(CODES[storage]) for storage in found if storage.quantised}
    kept = ", ".join(f"{count} in {storage.name}" for storage, count in found.items())
    how = "; ".join(dict.fromkeys(f"{way.name}, {way.reason}" for way in ways.values()))
    return (f"matrices of the blocks: {kept}; products: {how}",)
