"""How far 8-bit matrices and 8-bit products are from bf16 at the real model's size, and which layers matter.

    python -m infinitetalk.benchmarks.accuracy [--size 320x320] [--steps 4 40] [--out FILE]

Random weights, scaled so that every layer reaches the result (tests/support/random_checkpoint.py): they show rounding,
not what a trained model makes of it. Prints, against the same weights in bf16: the error of one forward with one
group of layers in 8 bits, of one forward with all of them, and of whole runs the error of the latents and the
PSNR of the frames. The noise floor is bf16 against itself with other attention kernels.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from ..pipeline.models.transformer.files import weight_dtype
from ..pipeline.models.transformer.linear import Linear
from ..pipeline.models.transformer.model import Context, WanTransformer
from ..pipeline.planning.machine import choose_operations
from ..pipeline.quantisation.codes import QUANTISERS, pack
from ..pipeline.quantisation.matmul import Matmuls, choose_matmuls
from ..pipeline.quantisation.storage import PLAIN
from ..pipeline.sampling.denoise import Conditions, denoise
from ..pipeline.sampling.guidance import ClassifierFreeGuidance
from ..pipeline.sampling.noise import window_generator
from ..pipeline.sampling.solvers import make_solver
from ..pipeline.settings.definition import Settings
from ..tests.support import random_checkpoint
from .real_size import CUDA, REAL, inputs, real_vae

SIZES = random_checkpoint.Sizes(
    dim=5120,
    heads=40,
    layers=40,
    ffn=13824,
    text_dim=4096,
    clip_dim=1280,
    audio_hidden=768,
    audio_layers=12,
    audio_tokens=32,
    audio_token_dim=768,
    audio_intermediate=512,
)
GROUPS = {
    "self_attn q, k": r"self_attn\.[qk]$",
    "self_attn v": r"self_attn\.v$",
    "self_attn o": r"self_attn\.o$",
    "cross_attn q": r"\.cross_attn\.q$",
    "cross_attn o": r"\.cross_attn\.o$",
    "cross_attn k, v of the text": r"\.cross_attn\.[kv]$",
    "cross_attn k, v of the image": r"\.cross_attn\.[kv]_img$",
    "ffn.0": r"ffn\.0$",
    "ffn.2": r"ffn\.2$",
    "audio q_linear": r"q_linear$",
    "audio kv_linear": r"kv_linear$",
    "audio proj": r"audio_cross_attn\.proj$",
    "the first block": r"^blocks\.0\.",
    "the last block": r"^blocks\.39\.",
    "all": "",
}


def random_model() -> WanTransformer:
    """The real sizes with the small checkpoints' random weights, bf16, on the card."""
    with torch.device("meta"):
        model = WanTransformer(REAL, choose_operations(Settings(), CUDA, torch.bfloat16))
    generator = torch.Generator(CUDA).manual_seed(0)
    table = {**random_checkpoint.transformer_table(SIZES), **random_checkpoint.infinitetalk_table(SIZES)}
    for name, parameter in list(model.named_parameters()):
        spec = table[name]
        owner, _, leaf = name.rpartition(".")
        new = torch.randn(parameter.shape, generator=generator, device=CUDA).mul_(spec.std).add_(spec.mean)
        new = nn.Parameter(new.to(weight_dtype(torch.bfloat16, name)), requires_grad=False)
        model.get_submodule(owner).register_parameter(leaf, new)
    return model.eval()


class Quantised:
    """The model with some of its layers in 8 bits, for the length of a with statement."""

    def __init__(self, model: WanTransformer, quant: str, matmuls: Matmuls, group: str = "") -> None:
        pattern = re.compile(group)
        self.layers = {n: m for n, m in model.named_modules() if isinstance(m, Linear) and pattern.search(n)}
        self.pack, self.matmuls = partial(pack, QUANTISERS[quant]), matmuls
        self.kept: dict[str, tuple[torch.Tensor, Callable]] = {}

    def __enter__(self) -> None:
        for name, layer in self.layers.items():
            self.kept[name] = layer.weight.data, layer.multiply
            packed = self.pack(layer.weight.data)
            layer.store(packed, self.matmuls.of(packed.storage))

    def __exit__(self, *_: object) -> None:
        for name, layer in self.layers.items():
            weight, multiply = self.kept.pop(name)
            layer.store(PLAIN[weight.dtype].fuse.pack(weight), multiply)


def relative(result: torch.Tensor, expected: torch.Tensor) -> float:
    return round(((result - expected).norm() / expected.norm()).item(), 6)


def psnr(result: torch.Tensor, expected: torch.Tensor) -> float:
    """Of frames in [-1, 1], in dB."""
    return round(10 * math.log10(4 / (result - expected).square().mean().clamp(min=1e-12).item()), 2)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="320x320", help="WIDTHxHEIGHT")
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 40])
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    results: dict[str, object] = {"card": torch.cuda.get_device_name(), "size": options.size}

    def tell(name: str, value: object) -> None:
        results[name] = value
        print(f"{name:70} {value}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")

    model, data = random_model(), inputs(height, width)
    ways = {setting: choose_matmuls(setting, CUDA, torch.bfloat16) for setting in ("off", "on")}

    def forward() -> torch.Tensor:
        keys = model.encode_text(data["text"], model.blocks), model.encode_image(data["image"], model.blocks)
        context = Context(*keys, model.embed_speech(data["audio"]))
        return model(data["latents"], data["reference"], 500.0, [context], model.blocks)[0]

    expected = forward()
    usual = model.operations
    model.operations = choose_operations(Settings(attention="sdpa", kernels="plain"), CUDA, torch.bfloat16)
    tell("one forward: bf16 with other kernels", relative(forward(), expected))
    model.operations = usual
    for quant in QUANTISERS:
        for setting, matmuls in ways.items():
            product = "weights only" if setting == "off" else "8-bit products"
            for group, pattern in GROUPS.items():
                with Quantised(model, quant, matmuls, pattern):
                    tell(f"one forward: {quant}, {product}, {group}", relative(forward(), expected))

    vae = real_vae(torch.bfloat16)

    def run(steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        keys = model.encode_text(data["text"], model.blocks), model.encode_image(data["image"], model.blocks)
        contexts = [{"cond": Context(*keys, model.embed_speech(data["audio"]))}] * steps
        solver = make_solver("euler", steps, 7.0, window_generator(0, 0))
        guide = ClassifierFreeGuidance(1.0, 1.0)
        noise, held = data["latents"], torch.zeros_like(data["latents"][:, :1])
        latents = denoise(
            model, model.blocks, noise, Conditions(data["reference"], held, contexts, [guide] * steps), solver
        )
        return latents, torch.cat([piece.cpu() for piece in vae.decode_frames(latents)], dim=1)

    for steps in options.steps:
        latents, frames = run(steps)
        for quant in QUANTISERS:
            for setting, matmuls in ways.items():
                product = "weights only" if setting == "off" else "8-bit products"
                with Quantised(model, quant, matmuls):
                    other_latents, other_frames = run(steps)
                tell(f"{steps} steps: {quant}, {product}, latents", relative(other_latents, latents))
                tell(f"{steps} steps: {quant}, {product}, frames (dB)", psnr(other_frames, frames))


if __name__ == "__main__":
    main()
