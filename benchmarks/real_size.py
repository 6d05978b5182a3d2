"""Seconds and gigabytes of the real model (18.9 B parameters, random weights) on one CUDA card.

    python -m infinitetalk.benchmarks.real_size [--upstream CLONE] [--size 640x640] [--quant fp8] [--out FILE]

Its parts: ``forward`` (one, two and three passes, and with other kernels), ``streamed`` (no block resident),
``vae``, ``window`` (two whole windows of four steps and two passes), ``upstream`` and ``upstream_vae`` (upstream's own
code in the same run, from a clone of MeiGen-AI/InfiniteTalk). A part that fails says why and the others go on.
Random weights cost what trained ones do. Prints a table; --out keeps it as JSON.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..pipeline.errors import InputError, in_short
from ..pipeline.facts.model_sizes import WAN_14B as REAL
from ..pipeline.media.fragments import VideoFormat
from ..pipeline.media.reference import open_reference
from ..pipeline.media.writer import VideoWriter
from ..pipeline.models.image_encoder import ImageEncoder, load_image_encoder
from ..pipeline.models.speech_features import features_from_tensor
from ..pipeline.models.transformer.block import Operations
from ..pipeline.models.transformer.blocks import TransformerBlocks
from ..pipeline.models.transformer.files import weight_dtype
from ..pipeline.models.transformer.linear import Linear
from ..pipeline.models.transformer.model import Context, WanTransformer
from ..pipeline.models.vae.kernels import choose_vae_kernels
from ..pipeline.models.vae.model import WanVAE, load_vae
from ..pipeline.planning.machine import choose_operations
from ..pipeline.planning.windows import window_plan
from ..pipeline.quantisation.codes import QUANTISERS, pack
from ..pipeline.run.progress import Step
from ..pipeline.run.streaming import Inputs, Models, stream
from ..pipeline.settings.definition import Settings
from ..pipeline.settings.validation import resolve
from ..tests.support import random_checkpoint

OURS, UPSTREAMS = ("forward", "streamed", "vae", "window"), ("upstream", "upstream_vae")
FRAMES = 81
CUDA = torch.device("cuda")
GIB = 2**30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", type=Path, help="clone of MeiGen-AI/InfiniteTalk, measured in the same run")
    parser.add_argument("--size", default="640x640", help="WIDTHxHEIGHT")
    parser.add_argument("--quant", choices=list(QUANTISERS), help="for ours; bf16 if left out")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=(*OURS, *UPSTREAMS),
        help=f"what to measure: {', '.join(OURS)}, and with --upstream {', '.join(UPSTREAMS)}; all if left out",
    )
    options = parser.parse_args()
    names = options.parts or [*OURS, *(UPSTREAMS if options.upstream else ())]
    if lacking := what_is_lacking(names, options.upstream):
        sys.exit(lacking)
    width, height = map(int, options.size.split("x"))
    results: dict[str, object] = {
        "card": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "size": options.size,
    }
    parts: dict[str, Callable[[], dict[str, object]]] = {
        "forward": lambda: measure_forward(height, width, options.quant),
        "streamed": lambda: measure_streamed(height, width, options.quant),
        "vae": lambda: measure_vae(height, width),
        "window": lambda: measure_window(height, width, options.quant),
        "upstream": lambda: measure_upstream(options.upstream, height, width),
        "upstream_vae": lambda: measure_upstream_vae(options.upstream, height, width),
    }
    for part in names:
        torch.cuda.reset_peak_memory_stats()
        for name, value in found_or_failed(part, parts[part]).items():
            results[name] = value
            sys.stdout.write(f"{name:58} {value}\n")
            sys.stdout.flush()
        gc.collect()
        torch.cuda.empty_cache()
        if options.out:
            options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


def what_is_lacking(parts: Sequence[str], upstream: Path | None) -> str | None:
    """What these parts need and this machine does not have, as a sentence: before anything is measured."""
    if not torch.cuda.is_available():
        return "A CUDA card with about 50 GiB is needed; PyTorch finds none."
    if not set(parts) & set(UPSTREAMS):
        return None
    if upstream is None:
        return "Say where a clone of MeiGen-AI/InfiniteTalk is: --upstream CLONE."
    from ..tests.golden.upstream import import_upstream

    try:
        with import_upstream(upstream, on_cuda=True):
            for name in ("wan.modules.multitalk_model", "wan.modules.vae"):
                importlib.import_module(name)
    except (ImportError, FileNotFoundError) as error:
        return f"--upstream {upstream}: {error}. Its parts can be left out (--parts)."
    return None


def found_or_failed(part: str, measure: Callable[[], dict[str, object]]) -> dict[str, object]:
    """What a part measured, or in one line why it could not."""
    try:
        return measure()
    except Exception as error:  # of any kind: the other parts are still worth their minutes
        return {f"{part}: failed": in_short(error)}


def seconds(work: Callable[[], object], repeat: int = 3) -> float:
    """Median of timed runs after one warm-up."""
    work()
    times = []
    for _ in range(repeat):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1000)
    return round(statistics.median(times), 4)


def peak() -> float:
    return round(torch.cuda.max_memory_reserved() / GIB, 2)


def randomise(module: nn.Module) -> None:
    """Weights that keep activations at a trained network's scale: kernels time on data, not on zeros."""
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
        else:
            nn.init.constant_(parameter, 1.0 if name.endswith("weight") else 0.01)


def operations(attention: str, kernels: str) -> Operations:
    return choose_operations(Settings(attention=attention, kernels=kernels), CUDA, torch.bfloat16)


def real_transformer(blocks: TransformerBlocks, quant: str | None = None) -> WanTransformer:
    """A transformer of real size with random weights, made block by block where each will live.

    Args:
        quant: "fp8" or "int8" for the blocks' matrices, None for bf16.
    """
    dtype = torch.bfloat16
    with torch.device("meta"):
        model = WanTransformer(REAL, operations("auto", "auto"))

    def materialise(module: nn.Module, device: torch.device, prefix: str = "") -> None:
        for name, parameter in list(module.named_parameters()):
            owner, _, leaf = name.rpartition(".")
            new = torch.empty(parameter.shape, dtype=weight_dtype(dtype, prefix + name), device=device)
            module.get_submodule(owner).register_parameter(leaf, nn.Parameter(new, requires_grad=False))

    for name, child in model.named_children():
        if name != "blocks":
            materialise(child, CUDA, f"{name}.")
    for block in model.blocks:
        materialise(block, CUDA)
        randomise(block)
        for layer in block.modules():
            if quant is not None and isinstance(layer, Linear):
                packed = pack(QUANTISERS[quant], layer.weight.data)
                layer.store(packed, model.operations.matmuls.of(packed.storage))
        blocks.add(block)
    for child in [child for child in model.children() if child is not model.blocks]:
        randomise(child)
    return model.requires_grad_(False).eval()


def inputs(height: int, width: int) -> dict[str, torch.Tensor]:
    frames, h, w = 1 + (FRAMES - 1) // 4, height // 8, width // 8
    torch.manual_seed(0)
    return {
        "latents": torch.randn(16, frames, h, w, device=CUDA),
        "reference": torch.randn(20, frames, h, w, device=CUDA),
        "text": torch.randn(60, REAL.text_dim, device=CUDA),
        "image": torch.randn(257, REAL.image_dim, device=CUDA),
        "audio": torch.randn(FRAMES, 5, 12, 768, device=CUDA),
    }


@torch.no_grad()
def forward_seconds(model: WanTransformer, blocks: TransformerBlocks, height: int, width: int, passes: int) -> float:
    data = inputs(height, width)
    keys = model.encode_text(data["text"], blocks.text), model.encode_image(data["image"], blocks.image)
    contexts = [Context(*keys, model.embed_speech(data["audio"] * (1 - b))) for b in range(passes)]
    return seconds(lambda: model(data["latents"], data["reference"], 500.0, contexts, blocks))


def named(model: WanTransformer) -> str:
    return f"{model.operations.attend.name} attention, {model.operations.pointwise.name} kernels"


def measure_forward(height: int, width: int, quant: str | None) -> dict[str, object]:
    blocks = TransformerBlocks(CUDA, resident=REAL.num_layers)
    model = real_transformer(blocks, quant)
    found = {
        "ours: parameters": sum(p.numel() for p in model.parameters()),
        f"ours: forward, one pass, {named(model)} (s)": forward_seconds(model, blocks, height, width, 1),
        "ours: forward, peak of one pass (GiB)": peak(),
        "ours: two passes walked together (s)": forward_seconds(model, blocks, height, width, 2),
        "ours: forward, peak of two passes (GiB)": peak(),
        "ours: three passes walked together (s)": forward_seconds(model, blocks, height, width, 3),
    }
    for attention, kernels in (("cudnn_fp8", "auto"), ("auto", "plain"), ("sdpa", "plain")):
        try:
            model.operations = operations(attention, kernels)
        except InputError as error:
            found[f"ours: forward, one pass, {attention} attention (s)"] = str(error)
            continue
        seconds_of_one = forward_seconds(model, blocks, height, width, 1)
        found[f"ours: forward, one pass, {named(model)} (s)"] = seconds_of_one
    return found


def measure_streamed(height: int, width: int, quant: str | None) -> dict[str, object]:
    blocks = TransformerBlocks(CUDA, resident=0, contexts_stay=False)
    model = real_transformer(blocks, quant)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return {
        "ours: one pass, no block resident (s)": forward_seconds(model, blocks, height, width, 1),
        "ours: two passes, no block resident (s)": forward_seconds(model, blocks, height, width, 2),
        "ours: no block resident, peak (GiB)": peak(),
    }


def real_vae(dtype: torch.dtype) -> WanVAE:
    """The VAE of real size with random weights, through a real file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vae.safetensors"
        save_file(random_checkpoint.vae_weights(replace(random_checkpoint.DEMO, vae_dim=96)), path)
        return load_vae(path, CUDA, dtype, choose_vae_kernels("auto", CUDA))


def real_image_encoder() -> ImageEncoder:
    """CLIP of real size with random weights, through a real file."""
    with tempfile.TemporaryDirectory() as folder:
        sizes = replace(random_checkpoint.DEMO, clip_dim=REAL.image_dim, clip_layers=32)
        path = Path(folder) / "clip.safetensors"
        save_file(random_checkpoint.image_encoder_weights(sizes), path)
        return load_image_encoder(path, CUDA, torch.float16)


def measure_vae(height: int, width: int) -> dict[str, object]:
    found: dict[str, object] = {}
    for dtype in (torch.float32, torch.bfloat16):
        name = f"ours: VAE {str(dtype).removeprefix('torch.')}"
        found |= {f"{name}, {what}": value for what, value in vae_costs(real_vae(dtype), height, width).items()}
        torch.cuda.empty_cache()
    return found


def vae_costs(vae: WanVAE, height: int, width: int) -> dict[str, float]:
    latents = torch.randn(16, 1 + (FRAMES - 1) // 4, height // 8, width // 8, device=CUDA)
    image = torch.rand(3, height, width, device=CUDA) * 2 - 1
    motion = torch.rand(3, 9, height, width, device=CUDA) * 2 - 1
    torch.cuda.reset_peak_memory_stats()
    return {
        "encode the reference as 81 frames (s)": seconds(lambda: vae.encode_still(image, FRAMES)),
        "encode 9 motion frames (s)": seconds(lambda: vae.encode(motion)),
        "decode 81 frames (s)": seconds(lambda: sum(1 for _ in vae.decode_frames(latents))),
        "peak (GiB)": peak(),
    }


def measure_window(height: int, width: int, quant: str | None) -> dict[str, object]:
    """Two windows of four steps and two passes, from decoded inputs to packets on the disk."""
    blocks = TransformerBlocks(CUDA, resident=REAL.num_layers)
    transformer = real_transformer(blocks, quant)
    models = Models(transformer, blocks, real_image_encoder(), real_vae(torch.float32), CUDA)
    settings = resolve(
        Settings(size=f"{width}x{height}", sample_steps=4, sample_text_guide_scale=1.0, sample_audio_guide_scale=2.0)
    )
    speech = features_from_tensor(torch.randn(153, 12, 768), None)
    reference = open_reference(Path(__file__).parent.parent / "assets" / "portrait.png")
    prompt = torch.randn(60, REAL.text_dim)
    spans = window_plan(153, settings.frame_num, settings.motion_frame)
    marks: list[tuple[object, float]] = []

    def listen(event: object) -> None:
        torch.cuda.synchronize()
        marks.append((event, time.perf_counter()))

    found: dict[str, object] = {}
    torch.cuda.reset_peak_memory_stats()
    with (
        tempfile.TemporaryDirectory() as folder,
        VideoWriter(Path(folder) / "out.mp4", VideoFormat(height, width)) as writer,
    ):
        inputs_ = Inputs(reference, speech, prompt, prompt)
        for window, _ in stream(models, inputs_, settings, spans, listen):
            listen(window)
            writer.write_window(window.frames)
            listen(None)
            steps = [at for event, at in marks if isinstance(event, Step)]
            began, decoded, written = marks[0][1], marks[-2][1], marks[-1][1]
            name = f"ours: window {window.index + 1}"
            found |= {
                f"{name}, in all (s)": round(written - began, 2),
                f"{name}, a step after the first (s)": round((steps[-1] - steps[0]) / 3, 2),
                f"{name}, before and with the first step (s)": round(steps[0] - began, 2),
                f"{name}, decoding, colours, to the CPU (s)": round(decoded - steps[-1], 2),
                f"{name}, H.264 and disk (s)": round(written - decoded, 2),
            }
            marks.clear()
    found["ours: windows, peak (GiB)"] = peak()
    return found


@torch.no_grad()
def measure_upstream(clone: Path, height: int, width: int, voices: int = 1) -> dict[str, object]:
    """Upstream's WanModel as it is, its attention being FlashAttention 2 or cuDNN's through PyTorch."""
    from ..tests.golden.upstream import import_upstream

    with import_upstream(clone, on_cuda=True):
        from wan.modules import multitalk_model

        with torch.device("meta"):
            model = multitalk_model.WanModel(
                model_type="i2v",
                dim=REAL.dim,
                ffn_dim=REAL.ffn_dim,
                in_dim=REAL.in_channels,
                num_heads=REAL.num_heads,
                num_layers=REAL.num_layers,
                weight_init=False,
            )
        model = model.to(torch.bfloat16).to_empty(device=CUDA)
        randomise(model)
        model.init_freqs()
        model.disable_teacache()
        data = inputs(height, width)
        bf16 = {name: tensor.to(torch.bfloat16) for name, tensor in data.items()}
        tokens = data["latents"][0].numel() // 4
        masks = torch.ones(3, height // 8, width // 8, device=CUDA)
        if voices == 2:  # each in its half
            masks[0, :, width // 16 :] = masks[1, :, : width // 16] = 0

        def forward() -> torch.Tensor:
            return model(
                [data["latents"]],
                t=torch.tensor([500.0], device=CUDA),
                context=[bf16["text"]],
                seq_len=tokens,
                clip_fea=bf16["image"][None],
                y=[bf16["reference"]],
                audio=torch.stack([bf16["audio"]] * voices),
                ref_target_masks=masks,
            )[0]

        found = {}
        kernels = {"FlashAttention 2": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
        for name, kernel in kernels.items():

            def attention(q, k, v, k_lens=None, kernel=kernel, **_):  # noqa: ANN001
                q, k, v = (x.to(torch.bfloat16).transpose(1, 2) for x in (q, k, v))
                order = [kernel, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
                with sdpa_kernel(order, set_priority=True):
                    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)

            with mock.patch.object(multitalk_model, "flash_attention", attention):
                found[f"upstream: forward, one pass, {name} (s)"] = seconds(forward, repeat=2)
        found["upstream: forward, peak (GiB)"] = peak()
        return found


@torch.no_grad()
def measure_upstream_vae(clone: Path, height: int, width: int) -> dict[str, object]:
    """Upstream's VAE as its windows use it: float32, and as it switches cuDNN."""
    from ..tests.golden.upstream import import_upstream

    with import_upstream(clone, on_cuda=True):
        from wan.modules.vae import WanVAE_

        vae = WanVAE_(dim=96, z_dim=16).to(CUDA).eval()
    scale = [torch.zeros(16, device=CUDA), torch.ones(16, device=CUDA)]
    latents = torch.randn(1, 16, 1 + (FRAMES - 1) // 4, height // 8, width // 8, device=CUDA)
    video = torch.rand(1, 3, FRAMES, height, width, device=CUDA) * 2 - 1
    with torch.backends.cudnn.flags(deterministic=True, benchmark=False):
        return {
            "upstream: VAE, encode the reference as 81 frames (s)": seconds(lambda: vae.encode(video, scale), 1),
            "upstream: VAE, encode 9 motion frames (s)": seconds(lambda: vae.encode(video[:, :, :9], scale), 1),
            "upstream: VAE, decode 81 frames (s)": seconds(lambda: vae.decode(latents, scale), 1),
        }


if __name__ == "__main__":
    main()
