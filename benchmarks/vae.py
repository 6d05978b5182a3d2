"""Seconds, gigabytes and agreement of the VAE at real size (random weights) on one CUDA card.

    python -m infinitetalk.benchmarks.vae [--parts bf16 profile ...] [--size 640x640] [--out FILE]

Prints a line of JSON for each result as soon as it is there, and appends it to FILE; what fails is a line that
says why. ``reserved`` is torch's peak in GiB without the VAE's weights; ``error`` is relative (Frobenius), of the
frames against those by plain PyTorch, untiled, in the same dtype. ``tiles`` counts tiles of the picture.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ..pipeline.facts.sizes import GIB
from ..pipeline.media.colour import lab_statistics, match_colour
from ..pipeline.models.vae.kernels import choose_vae_kernels
from ..pipeline.models.vae.model import WanVAE, load_vae
from ..pipeline.run.windows import to_uint8
from ..tests.support import random_checkpoint

CUDA = torch.device("cuda")
FRAMES, MOTION = 81, 9
DTYPES = {"bf16": torch.bfloat16, "float32": torch.float32}
# Kernels and tiles; the first is what the others are held against.
WAYS = [("plain", 1), ("triton", 1), ("triton", 2), ("triton", 4)]
# Channels in and out, kernel, frames that come in for a latent frame, and how much smaller than the picture.
CONVOLUTIONS = {
    "finest": (96, 96, (3, 3, 3), 6, 1),
    "half": (192, 192, (3, 3, 3), 6, 2),
    "quarter": (384, 384, (3, 3, 3), 4, 4),
    "coarsest": (384, 384, (3, 3, 3), 3, 8),
    "widening": (192, 384, (3, 3, 3), 4, 4),
    "shortcut": (192, 384, (1, 1, 1), 2, 4),
    "last": (96, 3, (3, 3, 3), 6, 1),
    "last, 8 channels": (96, 8, (3, 3, 3), 6, 1),
    "first": (3, 96, (3, 3, 3), 6, 1),
    "first, 8 channels": (8, 96, (3, 3, 3), 6, 1),
    "after doubling, finest": (192, 96, (1, 3, 3), 4, 1),
    "after doubling, half": (384, 192, (1, 3, 3), 4, 2),
}
Tell = Callable[[dict[str, object]], None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--size", default="640x640", help="width x height in pixels")
    parser.add_argument("--out", type=Path, help="file that the lines are appended to")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    torch.manual_seed(0)
    torch.set_grad_enabled(False)

    def tell(found: dict[str, object]) -> None:
        line = json.dumps(found)
        print(line, flush=True)
        if options.out is not None:
            with options.out.open("a") as file:
                file.write(line + "\n")

    tell({"card": torch.cuda.get_device_name(), "torch": torch.__version__, "size": options.size})
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "vae.safetensors"
        save_file(random_checkpoint.vae_weights(replace(random_checkpoint.DEMO, vae_dim=96)), weights)
        for part in options.parts:
            start = time.perf_counter()
            try:
                PARTS[part](weights, height, width, tell)
            except Exception as error:
                tell({"part": part, "failed": f"{type(error).__name__}: {error}"[:500]})
            tell({"part": part, "took": round(time.perf_counter() - start, 1)})
            torch.cuda.empty_cache()


def in_dtype(name: str, weights: Path, height: int, width: int, tell: Tell) -> None:
    """Every way of decoding, and encoding by both kinds of kernels."""
    latents = torch.randn(16, 1 + (FRAMES - 1) // 4, height // 8, width // 8, device=CUDA)
    image = torch.rand(3, height, width, device=CUDA) * 2 - 1
    motion = torch.rand(3, MOTION, height, width, device=CUDA) * 2 - 1
    vaes = {kind: load(weights, DTYPES[name], kind) for kind in ("plain", "triton")}
    expected = None
    for kind, tiles in WAYS:
        vae = vaes[kind]
        way = {"dtype": name, "decode": FRAMES, "kernels": vae.kernels.name, "tiles": tiles}
        try:
            frames = vae.decode(latents, tiles)
            expected = frames if expected is None else expected
            error = {"error": difference(frames, expected)}
            del frames
            tell(way | measured(lambda: [None for _ in vae.decode_frames(latents, tiles)]) | error)  # noqa: B023
        except Exception as error:
            tell(way | {"failed": f"{type(error).__name__}: {error}"[:300]})
    del expected
    for what, encode in {
        "still": lambda vae, tiles: vae.encode_still(image, FRAMES, tiles),
        "motion": lambda vae, tiles: vae.encode(motion, tiles),
    }.items():
        expected = None
        for kind, tiles in (("plain", 1), ("triton", 1), ("triton", 4)):
            way = {"dtype": name, "encode": what, "kernels": vaes[kind].kernels.name, "tiles": tiles}
            try:
                found = encode(vaes[kind], tiles)
                expected = found if expected is None else expected
                error = {"error": difference(found, expected)}
                tell(way | measured(lambda: encode(vaes[kind], tiles)) | error)  # noqa: B023
            except Exception as error:
                tell(way | {"failed": f"{type(error).__name__}: {error}"[:300]})


def memory(weights: Path, height: int, width: int, tell: Tell) -> None:
    """The peak at a larger size and in more tiles, once each."""
    for name, size, counts in (
        ("bf16", (960, 960), (1, 4, 6, 9)),
        ("bf16", (640, 640), (3, 6)),
        ("float32", (960, 960), (4, 9)),
    ):
        vae = load(weights, DTYPES[name], "triton")
        latents = torch.randn(16, 1 + (FRAMES - 1) // 4, size[0] // 8, size[1] // 8, device=CUDA)
        image = torch.rand(3, *size, device=CUDA) * 2 - 1
        for tiles in counts:
            for what, work in {
                "decode": lambda: [None for _ in vae.decode_frames(latents, tiles)],  # noqa: B023
                "encode": lambda: vae.encode_still(image, FRAMES, tiles),  # noqa: B023
            }.items():
                way = {"dtype": name, "size": f"{size[1]}x{size[0]}", what: FRAMES, "tiles": tiles}
                try:
                    tell(way | measured(work))
                except Exception as error:
                    tell(way | {"failed": f"{type(error).__name__}: {error}"[:300]})


def convolutions(weights: Path, height: int, width: int, tell: Tell) -> None:
    """Each kind of convolution alone in bf16, for one latent frame and for two at once."""
    for what, (given, made, kernel, frames, smaller) in CONVOLUTIONS.items():
        weight = torch.randn(made, given, *kernel, device=CUDA, dtype=torch.bfloat16)
        weight = weight.contiguous(memory_format=torch.channels_last_3d)
        for together in (1, 2):
            t = kernel[0] - 1 + (frames - kernel[0] + 1) * together
            x = torch.randn(1, given, t, height // smaller, width // smaller, device=CUDA, dtype=torch.bfloat16)
            x = x.contiguous(memory_format=torch.channels_last_3d)
            work = partial(F.conv3d, x, weight, padding=(0, kernel[1] // 2, kernel[2] // 2))
            y = work()
            found = measured(lambda: [work() for _ in range(20)])  # noqa: B023
            seconds = found["seconds"] / 20
            rate = 2 * y.numel() * weight[0].numel() / seconds / 1e12
            row = {"convolution": what, "channels": [given, made], "kernel": kernel, "together": together}
            tell(row | {"ms": round(seconds * 1e3, 3), "TFLOP/s": round(rate), "reserved": found["reserved"]})


def output(weights: Path, height: int, width: int, tell: Tell) -> None:
    """Colours and 8 bits of a window of decoded frames, on the card."""
    pieces = [torch.rand(3, 4, height, width, device=CUDA) * 2 - 1 for _ in range(FRAMES // 4)]
    colours = lab_statistics(pieces[0][:, 0])
    match_colour(pieces[0], colours, 1.0)
    tell({"colours": FRAMES} | measured(lambda: [match_colour(piece, colours, 1.0) for piece in pieces]))
    tell({"8 bits": FRAMES} | measured(lambda: [to_uint8(piece) for piece in pieces]))


def profile(weights: Path, height: int, width: int, tell: Tell) -> None:
    """The ten costliest kernels of decoding in bf16, milliseconds, and of encoding a still."""
    vae = load(weights, torch.bfloat16, "triton")
    latents = torch.randn(16, 1 + (FRAMES - 1) // 4, height // 8, width // 8, device=CUDA)
    image = torch.rand(3, height, width, device=CUDA) * 2 - 1
    for what, work in {
        "decode": lambda: [None for _ in vae.decode_frames(latents)],
        "encode": lambda: vae.encode_still(image, FRAMES),
    }.items():
        work()
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiler:
            work()
            torch.cuda.synchronize()
        rows = sorted(profiler.key_averages(), key=lambda row: -row.self_device_time_total)
        whole = sum(row.self_device_time_total for row in rows)
        tell({"profile": what, "all kernels (ms)": round(whole / 1000, 1)})
        for row in rows[:16]:
            tell({"ms": round(row.self_device_time_total / 1000, 1), "calls": row.count, "kernel": row.key[:140]})


def load(weights: Path, dtype: torch.dtype, kernels: str) -> WanVAE:
    return load_vae(weights, CUDA, dtype, choose_vae_kernels(kernels, CUDA))


def measured(work: Callable[[], object]) -> dict[str, object]:
    """Seconds of one run and its peak."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    peaks = torch.cuda.max_memory_reserved() - before, torch.cuda.max_memory_allocated() - before
    return {
        "seconds": round(seconds, 4),
        "reserved": round(peaks[0] / GIB, 2),
        "allocated": round(peaks[1] / GIB, 2),
    }


def difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return round(((found - expected).norm() / expected.norm()).item(), 6)


PARTS: dict[str, Callable[[Path, int, int, Tell], None]] = {
    "bf16": lambda *given: in_dtype("bf16", *given),
    "profile": profile,
    "convolutions": convolutions,
    "memory": memory,
    "float32": lambda *given: in_dtype("float32", *given),
    "output": output,
}


if __name__ == "__main__":
    main()
