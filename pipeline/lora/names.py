"""Whose key is whose parameter: the names that trainers and converters give to LoRA tensors.

A key is a prefix, a module's name and a suffix: ``diffusion_model.blocks.0.ffn.0.lora_up.weight``. Trainers
differ in all three. Knows names only; what the tensors mean is for ``changes``.
"""

from __future__ import annotations

import re
from collections.abc import Collection

PREFIXES = (
    "base_model.model.",  # PEFT
    "model.diffusion_model.",
    "diffusion_model.",  # ComfyUI, lightx2v, Kijai, diffusion-pipe
    "transformer.",  # diffusers
    "pipe.dit.",  # DiffSynth
    "unet.",
)
FLAT_PREFIXES = ("lora_unet__", "lora_unet_", "lycoris_")  # kohya, musubi, Fun; dots became underscores

# what follows a module's name -> the part that the tensor plays
_SUFFIXES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(f"(?:{pattern})$"), part)
    for pattern, part in (
        (r"\.lora_(?:B|up)(?:\.[^.]+)??(?:\.weight)?", "up"),
        (r"\.lora_(?:A|down)(?:\.[^.]+)??(?:\.weight)?", "down"),
        (r"[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight", "up"),
        (r"[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight", "down"),
        (r"\.lora_mid(?:\.weight)?", "mid"),
        (r"\.alpha", "alpha"),
        (r"\.diff|\.w_norm", "difference"),
        (r"\.diff_b|\.b_norm", "difference of the bias"),
        (r"\.diff_m", "difference of the modulation"),
    )
)
_BIAS_OF_UP = re.compile(r"\.lora_(?:B|up)(?:\.[^.]+)?\.bias$")

# what is recognised and not read: (part of a key, what it is)
REFUSED = (
    (re.compile(r"dora_scale|lora_magnitude_vector"), "DoRA"),
    (re.compile(r"\.lokr_w"), "LoKr"),
    (re.compile(r"\.hada_[wt]\d"), "LoHa"),
    (re.compile(r"\.(?:oft_blocks|oft_diag|oft_R)"), "OFT"),
    (re.compile(r"\.boft_"), "BOFT"),
    (re.compile(r"\.(?:a1|a2|b1|b2)\.weight$"), "GLoRA"),
    (re.compile(r"\.ia3_|\.on_input$"), "IA3"),
    (re.compile(r"\.set_weight$"), "replaced weights (set_weight)"),
    (re.compile(r"\.reshape_weight$"), "reshaped weights (reshape_weight)"),
    (re.compile(r"dwpose_embedding|randomref_embedding"), "UniAnimate"),
    (re.compile(r"_loras\.(?:down|up)"), "Stand-In"),
)

# diffusers' names of Wan's modules, in order; attn1 is the self-attention
_DIFFUSERS = tuple(
    (re.compile(pattern), ours)
    for pattern, ours in (
        (r"\.attn1\.to_out\.0$", ".self_attn.o"),
        (r"\.attn1\.to_([qkv])$", r".self_attn.\1"),
        (r"\.attn1\.norm_([qk])$", r".self_attn.norm_\1"),
        (r"\.attn2\.to_out\.0$", ".cross_attn.o"),
        (r"\.attn2\.to_([qkv])$", r".cross_attn.\1"),
        (r"\.attn2\.norm_([qk])$", r".cross_attn.norm_\1"),
        (r"\.attn2\.add_([kv])_proj$", r".cross_attn.\1_img"),
        (r"\.attn2\.norm_added_k$", ".cross_attn.norm_k_img"),
        (r"^(blocks\.\d+)\.norm2$", r"\1.norm3"),
        (r"\.ffn\.net\.0\.proj$", ".ffn.0"),
        (r"\.ffn\.net\.2$", ".ffn.2"),
        (r"^(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
        (r"^scale_shift_table$", "head.modulation"),
        (r"^proj_out$", "head.head"),
        (r"^condition_embedder\.time_embedder\.linear_1$", "time_embedding.0"),
        (r"^condition_embedder\.time_embedder\.linear_2$", "time_embedding.2"),
        (r"^condition_embedder\.time_proj$", "time_projection.1"),
        (r"^condition_embedder\.text_embedder\.linear_1$", "text_embedding.0"),
        (r"^condition_embedder\.text_embedder\.linear_2$", "text_embedding.2"),
        (r"^condition_embedder\.image_embedder\.norm1$", "img_emb.proj.0"),
        (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj$", "img_emb.proj.1"),
        (r"^condition_embedder\.image_embedder\.ff\.net\.2$", "img_emb.proj.3"),
        (r"^condition_embedder\.image_embedder\.norm2$", "img_emb.proj.4"),
    )
)


def split_key(key: str) -> tuple[str, str] | None:
    """Module (with its prefix) and part of a LoRA's key; None if it is no such key."""
    bias = _BIAS_OF_UP.search(key)
    if bias:
        return key[: bias.start()], "bias of up"
    for pattern, part in _SUFFIXES:
        found = pattern.search(key)
        if found:
            return key[: found.start()], part
    return None


def refused_as(key: str) -> str | None:
    """What kind of adapter a key belongs to that is recognised and not read."""
    return next((kind for pattern, kind in REFUSED if pattern.search(key)), None)


def parameter_of(module: str, part: str, parameters: Collection[str], flat: dict[str, str]) -> str | None:
    """The model's parameter that a tensor changes, or None if there is none.

    Args:
        module, part: from ``split_key``.
        parameters: the model's names.
        flat: ``flat_names(parameters)``.
    """
    leaf = {"difference of the bias": "bias", "bias of up": "bias", "difference of the modulation": "modulation"}
    for name in _candidates(module, flat):
        # a parameter may stand for itself: blocks.0.modulation.diff
        for candidate in (
            f"{name}.{leaf.get(part, 'weight')}",
            *((name,) if part in ("difference", "up", "down") else ()),
        ):
            if candidate in parameters:
                return candidate
    return None


def flat_names(parameters: Collection[str]) -> dict[str, str]:
    """Modules and parameters by their names with underscores for dots."""
    modules = {name.rpartition(".")[0] for name in parameters} | set(parameters)
    return {name.replace(".", "_"): name for name in sorted(modules) if name}


def _candidates(module: str, flat: dict[str, str]) -> tuple[str, ...]:
    for prefix in FLAT_PREFIXES:
        if module.startswith(prefix):
            name = flat.get(module.removeprefix(prefix).replace(".", "_"))
            return (name,) if name else ()
    bare = without_prefix(module)
    return bare, diffusers_name(bare)


def without_prefix(module: str) -> str:
    """A module's name without the prefixes of its publisher, of which there may be several."""
    for prefix in PREFIXES:
        module = module.removeprefix(prefix)
    return module


def diffusers_name(module: str) -> str:
    """Wan's own name for a module of diffusers' WanTransformer3DModel; other names stay."""
    for pattern, ours in _DIFFUSERS:
        if pattern.search(module):
            return pattern.sub(ours, module)
    return module
