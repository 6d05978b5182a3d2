"""Writes LoRA files for tests, with the keys that published files have, in every trainer's naming.

``Layers`` say what a LoRA changes, by the official names of modules; the functions below turn them into the
tensors of a file. Written from the published files' keys, not from the engine's reader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from .random_checkpoint import Sizes, infinitetalk_table, transformer_table

Weights = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """What a LoRA changes in one module; whatever is None it leaves alone.

    ``up`` [out, r, ...], ``down`` [r, in, ...], ``mid`` [r, r, ...]; ``weight``, ``bias`` and ``modulation`` are
    whole differences.
    """

    up: torch.Tensor | None = None
    down: torch.Tensor | None = None
    mid: torch.Tensor | None = None
    alpha: float | None = None
    weight: torch.Tensor | None = None
    bias: torch.Tensor | None = None
    modulation: torch.Tensor | None = None


Layers = dict[str, Layer]

IMAGE_LAYERS = r"cross_attn\.(k_img|v_img|norm_k_img)$|^img_emb"
IN_BLOCKS = r"^blocks\.\d+\.(self_attn|cross_attn|ffn)\."


def random_layers(
    sizes: Sizes,
    rank: int,
    modules: str,
    *,
    without: str = "^$",
    biases: bool = False,
    norms: bool = False,
    modulations: bool = False,
    alpha: float | None = None,
    strength: float = 0.3,
    seed: int = 0,
) -> Layers:
    """Random changes of the modules whose names match.

    Args:
        modules, without: patterns of module names to take and to leave out.
        biases, norms, modulations: with whole differences of these.
        strength: of a change, relative to the weights that it changes.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int, std: float) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * std

    layers: Layers = {}
    table = {**transformer_table(sizes), **infinitetalk_table(sizes)}
    for name, spec in table.items():
        module, _, leaf = name.rpartition(".")
        if re.search(without, module):
            continue
        if leaf == "modulation" and modulations:
            layers[module] = Layer(modulation=normal(*spec.shape, std=strength * spec.std))
        if leaf != "weight":
            continue
        bias = table.get(f"{module}.bias")
        difference = normal(*bias.shape, std=0.1 * strength) if biases and bias is not None else None
        if len(spec.shape) == 1:
            if norms:
                layers[module] = Layer(weight=normal(*spec.shape, std=0.1 * strength), bias=difference)
        elif re.search(modules, module):
            inputs = math.prod(spec.shape[1:])
            scale = 1 if alpha is None else alpha / rank
            down = normal(rank, inputs, std=inputs**-0.5)
            up = normal(spec.shape[0], rank, std=strength / scale * (inputs / rank) ** 0.5 * spec.std)
            layers[module] = Layer(up, down, alpha=alpha, bias=difference)
    return layers


def lightx2v_i2v(sizes: Sizes, rank: int = 8, seed: int = 1) -> Weights:
    """``lightx2v_I2V_14B_480p_cfg_step_distill_rank*_bf16``: Kijai's extraction, with biases, norms and modulations."""
    modules = IN_BLOCKS + r"|^(text_embedding|time_embedding|time_projection|img_emb|head)\."
    without = r"audio|norm_x"
    layers = random_layers(sizes, rank, modules, without=without, biases=True, norms=True, modulations=True, seed=seed)
    return cast(comfy(layers))


def lightx2v_t2v(sizes: Sizes, rank: int = 4, seed: int = 2) -> Weights:
    """``Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32``: no image layers, with biases and norms."""
    without = r"audio|norm_x|" + IMAGE_LAYERS
    return cast(comfy(random_layers(sizes, rank, IN_BLOCKS, without=without, biases=True, norms=True, seed=seed)))


def fusionx(sizes: Sizes, rank: int = 4, seed: int = 3) -> Weights:
    """``Wan2.1_I2V_14B_FusionX_LoRA``: factors of the blocks' matrices alone."""
    return cast(comfy(random_layers(sizes, rank, IN_BLOCKS, without="audio", strength=0.2, seed=seed)))


def audio_layers(sizes: Sizes, rank: int = 4, seed: int = 4) -> Weights:
    """A LoRA on InfiniteTalk's own layers."""
    return cast(comfy(random_layers(sizes, rank, r"audio_cross_attn|audio_proj", biases=True, norms=True, seed=seed)))


def cast(weights: Weights, dtype: torch.dtype = torch.bfloat16) -> Weights:
    return {name: tensor.to(dtype).contiguous() for name, tensor in weights.items()}


def comfy(layers: Layers, prefix: str = "diffusion_model.") -> Weights:
    """ComfyUI's and Kijai's keys; with no prefix, bare ones."""
    return _named(layers, lambda module: prefix + module, ".lora_up.weight", ".lora_down.weight", ".lora_mid.weight")


def peft(layers: Layers, prefix: str = "base_model.model.", adapter: str = ".default") -> Weights:
    """PEFT's, whose adapter may have a name; diffusion-pipe's with ``diffusion_model.`` and none."""
    return _named(layers, lambda module: prefix + module, f".lora_B{adapter}.weight", f".lora_A{adapter}.weight")


def kohya(layers: Layers, prefix: str = "lora_unet_") -> Weights:
    """kohya's and musubi's (``lora_unet_``), Fun's (``lora_unet__``), LyCORIS' (``lycoris_``)."""
    return _named(layers, lambda module: prefix + module.replace(".", "_"), ".lora_up.weight", ".lora_down.weight")


def diffusers(layers: Layers) -> Weights:
    """Keys of diffusers' WanTransformer3DModel."""
    return _named(layers, lambda module: f"transformer.{diffusers_module(module)}", ".lora_B.weight", ".lora_A.weight")


NAMINGS = {
    "comfy": comfy,
    "bare": lambda layers: comfy(layers, ""),
    "model.diffusion_model": lambda layers: comfy(layers, "model.diffusion_model."),
    "diffsynth": lambda layers: peft(layers, "pipe.dit.", ".default"),
    "peft": peft,
    "diffusion-pipe": lambda layers: peft(layers, "diffusion_model.", ""),
    "kohya": kohya,
    "fun": lambda layers: kohya(layers, "lora_unet__"),
    "lycoris": lambda layers: kohya(layers, "lycoris_"),
    "diffusers": diffusers,
}

_DIFFUSERS = {
    "self_attn.norm_": "attn1.norm_",
    "cross_attn.norm_k_img": "attn2.norm_added_k",
    "cross_attn.norm_": "attn2.norm_",
    "self_attn.o": "attn1.to_out.0",
    "cross_attn.o": "attn2.to_out.0",
    "cross_attn.k_img": "attn2.add_k_proj",
    "cross_attn.v_img": "attn2.add_v_proj",
    "self_attn.": "attn1.to_",
    "cross_attn.": "attn2.to_",
    "ffn.0": "ffn.net.0.proj",
    "ffn.2": "ffn.net.2",
    "norm3": "norm2",
}
_DIFFUSERS_OUTSIDE = {
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
}


def diffusers_module(module: str) -> str:
    """A module's name in diffusers."""
    if not module.startswith("blocks."):
        return _DIFFUSERS_OUTSIDE.get(module, module)
    _, number, rest = module.split(".", 2)
    for ours, theirs in _DIFFUSERS.items():
        if rest.startswith(ours):
            return f"blocks.{number}.{theirs}{rest.removeprefix(ours)}"
    return module


def _named(layers: Layers, name: Callable[[str], str], up: str, down: str, mid: str = "") -> Weights:
    return dict(_entries(layers, name, up, down, mid))


def _entries(
    layers: Layers, name: Callable[[str], str], up: str, down: str, mid: str
) -> Iterable[tuple[str, torch.Tensor]]:
    for module, layer in layers.items():
        stem = name(module)
        parts = {up: layer.up, down: layer.down, mid: layer.mid, ".diff": layer.weight, ".diff_b": layer.bias}
        parts[".diff_m"] = layer.modulation
        if layer.alpha is not None:
            parts[".alpha"] = torch.tensor(layer.alpha)
        yield from ((stem + ending, tensor) for ending, tensor in parts.items() if tensor is not None)


def applied(weights: Weights, layers: Layers, scale: float) -> Weights:
    """float32 weights with these changes, by the plain formulas; ``weights`` stay as they are."""
    result = dict(weights)
    for module, layer in layers.items():
        for leaf, change in (("weight", layer.weight), ("bias", layer.bias), ("modulation", layer.modulation)):
            if change is not None:
                result[f"{module}.{leaf}"] = result[f"{module}.{leaf}"] + scale * change.float()
        if layer.up is not None and layer.down is not None:
            rank = layer.down.shape[0]
            factor = scale * (1 if layer.alpha is None else layer.alpha / rank)
            old = result[f"{module}.weight"]
            result[f"{module}.weight"] = old + factor * (layer.up.float() @ layer.down.float()).reshape(old.shape)
    return result
