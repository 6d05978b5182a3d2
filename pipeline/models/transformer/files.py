"""Transformer files: recognising them and reading sizes off them.

The base (Wan 2.1 I2V) and InfiniteTalk's audio weights may be separate files or one, in any format that
``checkpoints.files`` opens. Reads headers alone, without PyTorch where files have them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...checkpoints.files import Tensors, has_header, open_tensors
from ...checkpoints.kinds import AUDIO_MARK, IMAGE_MARK, WAN_MARK
from ...checkpoints.lookup import audio_file
from ...checkpoints.shapes import check_names, check_shape, dimensions
from ...errors import InputError, in_short
from ...facts import downloads
from ...facts.json_text import read_json
from ...facts.model_sizes import AUDIO_WINDOW, TransformerConfig

if TYPE_CHECKING:
    import torch

# Wan's own models all have heads of 128 channels; a config.json beside the file says otherwise.
_USUAL_HEAD_DIM = 128
# in the header of a converted file, whose folder has no config.json
HEADS_METADATA = "num_heads"
BASE = "the Wan 2.1 I2V transformer (--ckpt_dir or --dit_path)"
_AUDIO = "the InfiniteTalk weights (--infinitetalk_dir)"


def open_transformer(base: Path, audio: Path | None, whole: bool = False) -> Tensors:
    """Open the base and the audio weights as one set of tensors.

    Args:
        base: folder of official shards, or a single file.
        audio: ``infinitetalk.safetensors``, its folder or the folder of the whole download; None if the
            base holds the audio weights.
        whole: take the audio weights that are in ``base``, if there are any, even if ``audio`` is given.

    Raises:
        InputError: files missing, of another kind, or not readable.
    """
    if not base.exists():
        raise InputError(f"{BASE}: {base} does not exist. Get it with: {downloads.BASE}")
    tensors = _open_wan(base, BASE)
    if audio is not None and not (whole and AUDIO_MARK in tensors):
        audio_tensors = _open_audio(audio)
        _check_one_size(tensors, audio_tensors)
        tensors = tensors.merged_with(audio_tensors)
    if AUDIO_MARK not in tensors:
        raise InputError(
            f"--infinitetalk_dir is missing: {tensors.source} holds no audio layers. "
            f"Give infinitetalk.safetensors; get it with: {downloads.INFINITETALK}"
        )
    return tensors


def check_headers(base: Path, audio: Path | None, whole: bool = False) -> None:
    """The same as far as it can be told without PyTorch: files of torch.save have no header and are not looked into.

    Raises:
        InputError: see ``open_transformer``.
    """
    base_told = has_header(base, BASE)
    if base_told and (audio is None or has_header(audio_file(audio), _AUDIO)):
        open_transformer(base, audio, whole)
    elif base_told:
        _open_wan(base, BASE)


def holds_audio(base: Path) -> bool:
    """Whether a transformer's file has audio layers inside."""
    return AUDIO_MARK in _open_wan(base, BASE)


def _open_wan(path: Path, what: str) -> Tensors:
    tensors = open_tensors(path, what, downloads.BASE).without_prefix("model.diffusion_model.")
    if WAN_MARK not in tensors:
        raise InputError(
            f"{what}: {path} is no Wan transformer (it holds {_some(tensors)}). Give Wan2.1-I2V-14B; "
            f"get it with: {downloads.BASE}"
        )
    if IMAGE_MARK not in tensors:
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
    if AUDIO_MARK not in tensors:
        raise InputError(
            f"{_AUDIO}: {path} holds no audio layers (it holds {_some(tensors)}). Give infinitetalk.safetensors; "
            f"get it with: {downloads.INFINITETALK}"
        )
    return tensors


def _check_one_size(base: Tensors, audio: Tensors) -> None:
    """See that both are for blocks of one number and width; a 1.3B base has fewer and narrower ones."""
    names = ((base, "blocks.0.self_attn.q.weight"), (audio, "blocks.0.audio_cross_attn.q_linear.weight"))
    sizes = [(_block_count(tensors), *tensors.shape(name)[:1]) for tensors, name in names if name in tensors]
    if len(sizes) == 2 and sizes[0] != sizes[1]:
        (blocks, width), (audio_blocks, audio_width) = sizes
        raise InputError(
            f"{_AUDIO}: {audio.source} is for {audio_blocks} blocks of width {audio_width}, but the base {base.source} "
            f"has {blocks} of width {width}. Both must be for Wan2.1-I2V-14B; get them with: {downloads.BASE} and: "
            f"{downloads.INFINITETALK}"
        )


def _block_count(tensors: Tensors) -> int:
    numbers = (re.match(r"blocks\.(\d+)\.", name) for name in tensors)
    return 1 + max(int(number[1]) for number in numbers if number)


def multitalk_notice(path: Path) -> str | None:
    """What to say of MultiTalk's weights in InfiniteTalk's place, which only a file's name can tell."""
    name = path.name.lower()
    if "multitalk" not in name or "infinite" in name:
        return None
    return (
        f"{path} is MultiTalk's by its name, not InfiniteTalk's. The two have the same tensors, so it runs, but "
        f"MultiTalk goes on from window to window in another way; get InfiniteTalk's with: {downloads.INFINITETALK}"
    )


def _some(tensors: Tensors) -> str:
    names = list(tensors)
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "nothing"


def _part(name: str) -> str:
    """Which of the two files a tensor belongs to, for messages."""
    return _AUDIO if re.search(r"^audio_proj\.|\.audio_cross_attn\.|\.norm_x\.", name) else BASE


def _sources(tensors: Tensors) -> dict[str, Path]:
    return {BASE: tensors.source, _AUDIO: tensors.source_of(AUDIO_MARK)}


def transformer_config(tensors: Tensors) -> TransformerConfig:
    """Sizes from the tensors' shapes, the number of heads from config.json where there is one.

    Raises:
        InputError: a tensor that tells a size is missing or has another number of axes.
    """

    def shape(name: str, rank: int = 2) -> tuple[int, ...]:
        return dimensions(name, rank, tensors, _part(name), _sources(tensors)[_part(name)])

    dim, in_channels, frames, height, width = shape("patch_embedding.weight", 5)
    audio_dim = shape("blocks.0.audio_cross_attn.kv_linear.weight")[1]
    return TransformerConfig(
        dim=dim,
        ffn_dim=shape("blocks.0.ffn.0.weight")[0],
        num_heads=_num_heads(dim, tensors),
        num_layers=_block_count(tensors),
        in_channels=in_channels,
        out_channels=shape("head.head.weight")[0] // (frames * height * width),
        patch_size=(frames, height, width),
        freq_dim=shape("time_embedding.0.weight")[1],
        text_dim=shape("text_embedding.0.weight")[1],
        image_dim=shape("img_emb.proj.1.weight")[1],
        audio_dim=audio_dim,
        audio_hidden=shape("audio_proj.proj1.weight")[0],
        audio_tokens=shape("audio_proj.proj3.weight")[0] // audio_dim,
        audio_features=shape("audio_proj.proj1.weight")[1] // AUDIO_WINDOW,
    )


def _num_heads(dim: int, tensors: Tensors) -> int:
    source, told = tensors.source, tensors.metadata.get(HEADS_METADATA, "")
    if told.isdecimal() and int(told) and dim % int(told) == 0:
        return int(told)
    config = (source if source.is_dir() else source.parent) / "config.json"
    if config.exists():
        try:
            settings = read_json(config.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{config} is not valid JSON ({in_short(error)}).") from error
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
    import torch

    sensitive = name.startswith(("time_embedding.", "time_projection.", "head.")) or name.endswith("modulation")
    return torch.float32 if sensitive else dtype


def check_parts(expected: Mapping[str, tuple[int, ...]], tensors: Tensors) -> None:
    """See that every tensor is there in its shape; what is wrong is said of the file that it belongs to."""
    for part, source in _sources(tensors).items():
        check_names([name for name in expected if _part(name) == part], tensors, part, source=source)
    for name, shape in expected.items():
        check_shape(name, shape, tensors, _part(name))
