"""Seconds, TFLOP/s and errors of self-attention in 16 and in 8 bits at real size, on one CUDA card.

    python -m infinitetalk.benchmarks.attention [--parts times errors blocks] [--tokens 33600 75600] [--out FILE]

Prints a line of JSON for each result as soon as it is there, and appends it to FILE; what fails is a line that says
why. 40 heads of 128 channels; 33,600 tokens are a window of 640x640, 75,600 one of 960x960. Errors are relative
(Frobenius), against float32, of the first 512 queries. About a minute; cudnn_fp8 needs nvidia-cudnn-frontend.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from ..pipeline.commands.timing import FLOATS, Sizes, time_block
from ..pipeline.facts.model_sizes import WAN_14B
from ..pipeline.models.transformer.attention import Attention, choose_attention
from ..pipeline.models.transformer.fp8_attention import E4M3, scale_of
from .quantised import BF16, CUDA, Result, Results, attempt, relative_error, speed, tell

HEADS, WIDTH, CHECKED = WAN_14B.num_heads, WAN_14B.head_dim, 512
BACKENDS = ("sdpa", "cudnn", "cudnn_fp8")
Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--tokens", type=int, nargs="+", default=[33_600, 75_600])
    parser.add_argument("--out", type=Path, help="file that the lines are appended to")
    options = parser.parse_args()
    tell(options.out, environment())
    for tokens in options.tokens:
        for part in options.parts:
            torch.manual_seed(0)
            try:
                for what, work in PARTS[part](tokens):
                    tell(options.out, {"part": part, "tokens": tokens, **what, **attempt(work)})
            except Exception as error:
                tell(options.out, {"part": part, "tokens": tokens, "failed": f"{type(error).__name__}: {error}"[:500]})
            torch.cuda.empty_cache()


@cache
def backend(name: str) -> Attention:
    return choose_attention(name, CUDA, BF16)


def environment() -> Result:
    try:
        frontend = version("nvidia-cudnn-frontend")
    except PackageNotFoundError:
        frontend = None
    name, capability = torch.cuda.get_device_name(), torch.cuda.get_device_capability()
    found = {"card": name, "capability": capability, "torch": torch.__version__}
    return {**found, "cudnn": torch.backends.cudnn.version(), "nvidia-cudnn-frontend": frontend}


def noise(tokens: int) -> Triple:
    q, k, v = (torch.randn(1, tokens, HEADS, WIDTH, device=CUDA, dtype=BF16) for _ in range(3))
    return q, k, v


def times(tokens: int) -> Results:
    operations = 4 * tokens**2 * HEADS * WIDTH
    qkv = noise(tokens)
    for name in BACKENDS:
        yield {"way": name}, lambda name=name: speed(partial(backend(name), *qkv), operations)

    attend, element = backend("cudnn_fp8").function, qkv[0].numel()
    scales = [scale_of(x) for x in qkv]
    packed = [attend.cast(x, scale, E4M3) for x, scale in zip(qkv, scales, strict=True)]
    yield {"way": "cudnn_fp8, the kernel alone"}, lambda: speed(lambda: attend.multiply(packed, scales), operations)
    yield {"way": "the scale of one tensor"}, lambda: speed(lambda: scale_of(qkv[0]), moved=2 * element)
    for name, x, dtype in (("one tensor to e4m3", qkv[0], E4M3), ("the result from e4m3", packed[0], BF16)):
        yield {"way": name}, lambda x=x, dtype=dtype: speed(lambda: attend.cast(x, scales[0], dtype), moved=3 * element)


def errors(tokens: int) -> Results:
    for kind, make in DATA.items():
        qkv = make(tokens)
        expected = exact(*qkv)
        for name in BACKENDS[1:]:
            yield {"data": kind, "way": name}, partial(error, name, qkv, expected)


def error(name: str, qkv: Triple, expected: torch.Tensor) -> Result:
    return {"error": relative_error(backend(name)(*qkv)[:, :CHECKED], expected)}


def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """The first queries' results in float32, eight heads at a time."""
    done = []
    for heads in (slice(h, h + 8) for h in range(0, HEADS, 8)):
        part_q, part_k, part_v = q[:, :CHECKED, heads].float(), k[:, :, heads].float(), v[:, :, heads].float()
        scores = torch.einsum("bqhd,bkhd->bhqk", part_q, part_k) / math.sqrt(WIDTH)
        done.append(torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), part_v))
    return torch.cat(done, 2)


def found_keys(tokens: int) -> Triple:
    """Each query likes one key and its neighbours, as where pictures hardly move."""
    k = noise(tokens)[0]
    k = k + k.roll(1, 1) + k.roll(2, 1)
    return k.roll(-1, 1), k, noise(tokens)[2]


def offset(tokens: int) -> Triple:
    """The same with a bias in every channel of keys and values, eight channels of each head being loud."""
    q, k, v = found_keys(tokens)
    biases = 3 * torch.randn(2, 1, 1, HEADS, WIDTH, device=CUDA, dtype=BF16)
    biases[..., :8] *= 5
    return q, k + biases[0], v + biases[1]


DATA: dict[str, Callable[[int], Triple]] = {"noise": noise, "found": found_keys, "found, with biases": offset}


def blocks(tokens: int) -> Results:
    side = 16 * math.isqrt(tokens // 21)
    sizes = Sizes(WAN_14B, 96, side, side, 81)

    for kept in (FLOATS, "fp8"):
        for name in BACKENDS[1:]:
            yield {"block": kept, "way": name}, partial(block, kept, name, sizes)


def block(kept: str, name: str, sizes: Sizes) -> Result:
    return {"ms": round(time_block(kept, sizes, CUDA, BF16, name) * 1000, 2)}


PARTS = {"times": times, "errors": errors, "blocks": blocks}


if __name__ == "__main__":
    main()
