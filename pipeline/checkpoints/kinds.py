"""What a weights file is, told by the names of its tensors, never by its own name; without PyTorch."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

# of a Wan transformer, of one for images, and of InfiniteTalk's audio layers
WAN_MARK = "head.modulation"
IMAGE_MARK = "blocks.0.cross_attn.k_img.weight"
AUDIO_MARK = "audio_proj.proj1.weight"
SILENCE_MARK = "audio_emb"
DEMUCS_MARK = "freq_emb.embedding.weight"
EMBEDDED_TOKENIZER = "spiece_model"  # ComfyUI's text encoders carry the bytes of spiece.model under this name
# in the header of a converted file: the LoRAs that are fused into it
LORA_METADATA = "infinitetalk_loras"


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        what: what it is, for people.
        marks: names of tensors, after any prefix, all of which it has.
        flag: the setting that it is for; None where none takes it.
        fits: which flags take it, for people.
        refused: why it is not taken.
    """

    what: str
    marks: tuple[str, ...]
    flag: str | None = None
    fits: str = ""
    refused: str = ""


# in this order: a file is the first kind all of whose marks it has
KINDS = (
    Kind(
        "a Wan 2.1 image-to-video transformer with InfiniteTalk's audio layers inside",
        (WAN_MARK, IMAGE_MARK, AUDIO_MARK),
        "dit_path",
        "--dit_path alone (or --quant_dir with --quant)",
    ),
    Kind(
        "a Wan 2.1 image-to-video transformer",
        (WAN_MARK, IMAGE_MARK),
        "dit_path",
        "--dit_path, or --ckpt_dir as part of the official folder",
    ),
    Kind(
        "a Wan text-to-video transformer",
        (WAN_MARK, "patch_embedding.weight"),
        refused="it has no image cross-attention; InfiniteTalk needs the image-to-video model",
    ),
    Kind(
        "InfiniteTalk's audio layers (or MultiTalk's: their names are the same)",
        (AUDIO_MARK, "blocks.0.audio_cross_attn.kv_linear.weight"),
        "infinitetalk_dir",
        "--infinitetalk_dir",
    ),
    Kind(
        "a Wan transformer in the layout of diffusers",
        ("condition_embedder.time_proj.weight",),
        refused="give the original or a Comfy-Org file of the same model",
    ),
    Kind(
        "a umT5 text encoder (Wan's names)",
        ("blocks.0.attn.q.weight", "token_embedding.weight"),
        "text_encoder",
        "--text_encoder",
    ),
    Kind(
        "a T5 text encoder (Hugging Face's names)",
        ("encoder.block.0.layer.0.SelfAttention.q.weight",),
        "text_encoder",
        "--text_encoder",
    ),
    Kind(
        "a CLIP image encoder (open-clip's names)", ("visual.patch_embedding.weight",), "clip_vision", "--clip_vision"
    ),
    Kind(
        "a CLIP image encoder (Hugging Face's names)",
        ("embeddings.patch_embedding.weight",),
        "clip_vision",
        "--clip_vision",
    ),
    Kind("a Wan VAE", ("decoder.middle.0.residual.0.gamma",), "vae", "--vae"),
    Kind("a wav2vec2 speech encoder", ("feature_extractor.conv_layers.0.conv.weight",), "wav2vec_dir", "--wav2vec_dir"),
    Kind(
        "a voice separator (torchaudio's Hybrid Demucs)",
        (DEMUCS_MARK, "freq_encoder.0.conv.weight"),
        "separate_voice",
        "--separate_voice",
    ),
    Kind(
        "a voice separator (Mel-Band RoFormer)",
        ("band_split.to_features.0.1.weight", "mask_estimators.0.to_freqs.0.0.0.weight"),
        "separate_voice",
        "--separate_voice",
    ),
    Kind("features of silence", (SILENCE_MARK,), "silence", "--silence"),
)


def kind_of(names: Collection[str]) -> Kind | None:
    """What a file with tensors of these names is; None for what is not used here."""
    return next((kind for kind in KINDS if all(_has(names, mark) for mark in kind.marks)), None)


def is_for(flag: str, names: Collection[str]) -> bool:
    """Whether a file may be for this setting. One that lacks a tensor may be too: its reader says which."""
    return any(_has(names, mark) for kind in KINDS if kind.flag == flag for mark in kind.marks)


def _has(names: Collection[str], mark: str) -> bool:
    return mark in names or any(name.endswith(f".{mark}") for name in names)
