"""Transformer files: recognising them, reading sizes off them, loading them block by block.

The base (Wan 2.1 I2V) and InfiniteTalk's audio weights may be separate files or one. What cannot
be read right yet (scaled or packed quantised files) is refused by name.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import torch

from ..errors import InputError
from ..memory import TransformerSize
from ..weights import downloads
from ..weights.files import Tensors, open_tensors
from ..weights.load import check_names, check_shape, dimensions, fill
from ..weights.residency import BlockStreamer
from .transformer import AUDIO_WINDOW, Operations, TransformerConfig, WanTransformer

# Wan's own models all have heads of 128 channels; a config.json beside the file says otherwise.
_USUAL_HEAD_DIM = 128
_BASE = "the Wan 2.1 I2V transformer (--ckpt_dir or --dit_path)"
_AUDIO = "the InfiniteTalk weights (--infinitetalk_dir)"
_AUDIO_FILES = ("infinitetalk.safetensors", "single/infinitetalk.safetensors")


def open_transformer(base: Path, audio: Path | None) -> Tensors:
    """Open the base and the audio weights as one set of tensors.

    Args:
        base: folder of official shards, or a single file.
        audio: ``infinitetalk.safetensors``, its folder or the folder of the whole download; None if the
            base holds the audio weights.

    Raises:
        InputError: files missing, of another kind, or not readable yet.
    """
    if not base.exists():
        raise InputError(f"{_BASE}: {base} does not exist. Get it with: {downloads.BASE}")
    tensors = _open_wan(base, _BASE)
    if audio is not None:
        tensors = tensors.merged_with(_open_audio(audio))
    if "audio_proj.proj1.weight" not in tensors:
        raise InputError(
            f"--infinitetalk_dir is missing: {tensors.source} holds no audio layers. "
            f"Give infinitetalk.safetensors; get it with: {downloads.INFINITETALK}"
        )
    return tensors


def _open_wan(path: Path, what: str) -> Tensors:
    tensors = open_tensors(path, what, downloads.BASE).without_prefix("model.diffusion_model.")
    _refuse_quantised(tensors, what)
    if "head.modulation" not in tensors:
        raise InputError(
            f"{what}: {path} is no Wan transformer (it holds {_some(tensors)}). Give Wan2.1-I2V-14B; "
            f"get it with: {downloads.BASE}"
        )
    if "blocks.0.cross_attn.k_img.weight" not in tensors:
        raise InputError(
            f"{what}: {path} is a text-to-video model (no image cross-attention). "
            f"InfiniteTalk needs Wan2.1-I2V-14B; get it with: {downloads.BASE}"
        )
    return tensors


def _open_audio(path: Path) -> Tensors:
    if not path.exists():
        raise InputError(f"{_AUDIO}: {path} does not exist. Get it with: {downloads.INFINITETALK}")
    path = audio_file(path)
    if path.is_dir():
        raise InputError(
            f"{_AUDIO}: the folder {path} holds no infinitetalk.safetensors. Give that file; "
            f"get it with: {downloads.INFINITETALK}"
        )
    tensors = open_tensors(path, _AUDIO).without_prefix("model.diffusion_model.")
    _refuse_quantised(tensors, _AUDIO)
    if "audio_proj.proj1.weight" not in tensors:
        raise InputError(
            f"{_AUDIO}: {path} holds no audio layers (it holds {_some(tensors)}). Give infinitetalk.safetensors; "
            f"get it with: {downloads.INFINITETALK}"
        )
    return tensors


def audio_file(path: Path) -> Path:
    """The file that a folder of InfiniteTalk weights means; anything else as it is."""
    return next((path / name for name in _AUDIO_FILES if (path / name).is_file()), path)


def _some(tensors: Tensors) -> str:
    names = list(tensors)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "nothing"


def _part(name: str) -> str:
    """Which of the two files a tensor belongs to, for messages."""
    return _AUDIO if re.search(r"^audio_proj\.|\.audio_cross_attn\.|\.norm_x\.", name) else _BASE


def _sources(tensors: Tensors) -> dict[str, Path]:
    return {_BASE: tensors.source, _AUDIO: tensors.source_of("audio_proj.proj1.weight")}


def _refuse_quantised(tensors: Tensors, what: str) -> None:
    marks = ("scaled_fp8", ".scale_weight", ".weight_scale", ".comfy_quant", "._data", "._scale")
    found = next((name for name in tensors if name.endswith(marks)), None)
    if found is not None:
        raise InputError(
            f"{what}: {tensors.source} is a quantised file ({found}), which is not read yet. "
            "Give the bf16 or fp16 file of the same model."
        )


def transformer_config(tensors: Tensors) -> TransformerConfig:
    """Sizes from the tensors' shapes, the number of heads from config.json where there is one.

    Raises:
        InputError: a tensor that tells a size is missing or has another number of axes.
    """

    def shape(name: str, rank: int = 2) -> tuple[int, ...]:
        return dimensions(name, rank, tensors, _part(name), _sources(tensors)[_part(name)])

    dim, in_channels, *patch_size = shape("patch_embedding.weight", 5)
    audio_dim = shape("blocks.0.audio_cross_attn.kv_linear.weight")[1]
    numbers = (re.match(r"blocks\.(\d+)\.", name) for name in tensors)
    return TransformerConfig(
        dim=dim,
        ffn_dim=shape("blocks.0.ffn.0.weight")[0],
        num_heads=_num_heads(dim, tensors.source),
        num_layers=1 + max(int(number[1]) for number in numbers if number),
        in_channels=in_channels,
        out_channels=shape("head.head.weight")[0] // math.prod(patch_size),
        patch_size=tuple(patch_size),
        freq_dim=shape("time_embedding.0.weight")[1],
        text_dim=shape("text_embedding.0.weight")[1],
        image_dim=shape("img_emb.proj.1.weight")[1],
        audio_dim=audio_dim,
        audio_hidden=shape("audio_proj.proj1.weight")[0],
        audio_tokens=shape("audio_proj.proj3.weight")[0] // audio_dim,
        audio_features=shape("audio_proj.proj1.weight")[1] // AUDIO_WINDOW,
    )


def transformer_size(tensors: Tensors) -> TransformerSize:
    """Sizes of the transformer that these tensors are of."""
    config = transformer_config(tensors)
    block_parameters = tensors.under("blocks.0.").numel()
    return TransformerSize(
        blocks=config.num_layers,
        block_parameters=block_parameters,
        other_parameters=tensors.numel() - config.num_layers * block_parameters,
        dim=config.dim,
        ffn_dim=config.ffn_dim,
    )


def _num_heads(dim: int, source: Path) -> int:
    config = (source if source.is_dir() else source.parent) / "config.json"
    if config.exists():
        try:
            settings = json.loads(config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{config} is not valid JSON ({error}).") from error
        if not isinstance(settings, dict):
            raise InputError(f"{config} holds a JSON {type(settings).__name__}, not the sizes of a model.")
        heads = settings.get("num_heads")
        if settings.get("dim") == dim and isinstance(heads, int):
            if heads < 1 or dim % heads or dim // heads % 2:
                raise InputError(f"{config}: num_heads is {heads}, which does not cut dim ({dim}) into even parts.")
            return heads
    if dim % _USUAL_HEAD_DIM:
        raise InputError(
            f"{source}: a width of {dim} is no multiple of {_USUAL_HEAD_DIM}, so the number of heads must come "
            "from a config.json beside the file (dim, num_heads)."
        )
    return dim // _USUAL_HEAD_DIM


def weight_dtype(dtype: torch.dtype, name: str) -> torch.dtype:
    """float32 for what upstream computes in float32 (modulation, time, head), else ``dtype``."""
    sensitive = name.startswith(("time_embedding.", "time_projection.", "head.")) or name.endswith("modulation")
    return torch.float32 if sensitive else dtype


def load_transformer(
    tensors: Tensors, operations: Operations, dtype: torch.dtype, streamer: BlockStreamer
) -> WanTransformer:
    """Build the transformer and fill it, handing each block to ``streamer`` as soon as it is read.

    Never holds more than one block beyond the weights themselves. Everything that is not a block
    lives on the streamer's device.
    """
    config = transformer_config(tensors)
    with torch.device("meta"):
        model = WanTransformer(config, operations)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _check_parts(expected, tensors)

    fill(model, tensors, _BASE, dtype=lambda n: weight_dtype(dtype, n), device=streamer.device, skip="blocks.")
    for index, block in enumerate(model.blocks):
        fill(
            block,
            tensors.under(f"blocks.{index}."),
            _BASE,
            dtype=lambda n: weight_dtype(dtype, n),
            device=streamer.loading_device(index),
        )
        streamer.add(block)
    return model.eval().requires_grad_(False)


def _check_parts(expected: dict[str, tuple[int, ...]], tensors: Tensors) -> None:
    """See that every tensor is there in its shape; what is wrong is said of the file that it belongs to."""
    for part, source in _sources(tensors).items():
        check_names([name for name in expected if _part(name) == part], tensors, part, source=source)
    for name, shape in expected.items():
        check_shape(name, shape, tensors, _part(name))
