"""Seconds, TFLOP/s and errors of the products of quantised matrices at real size, on one CUDA card.

    python -m infinitetalk.benchmarks.quantised [--parts choice activations ...] [--tokens 33600] [--out FILE]

Prints a line of JSON for each result as soon as it is there, and appends it to FILE; what fails is a line
that says why. Errors are relative (Frobenius) on the first 2048 tokens: ``error`` of the whole layer against
float32, ``sums`` of the product alone against the quantised numbers multiplied in float32, with ``slope`` the
regression of the one on the other (below 1: sums that are cut off). ``loud`` is ``error`` where tokens differ
in loudness and 8 channels are 30 times louder.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F

from ..pipeline.commands.timing import Sizes, time_block
from ..pipeline.errors import Unavailable
from ..pipeline.facts.model_sizes import WAN_14B
from ..pipeline.models.transformer.linear import Linear
from ..pipeline.models.transformer.pointwise import choose_pointwise
from ..pipeline.quantisation import activations, products
from ..pipeline.quantisation.activations import Quantised, quantise_rows, token_slices
from ..pipeline.quantisation.gguf import STORAGES
from ..pipeline.quantisation.matmul import Activation, EightBit, Multiply, ReadBack, choose_matmuls, unpack_by_parts
from ..pipeline.quantisation.products import Product, find_product
from ..pipeline.quantisation.rowwise import FP8_E4M3, FP8_E5M2, INT8, pack_fp8, pack_int8
from ..pipeline.quantisation.storage import Packed
from ..pipeline.quantisation.triton_probe import triton_kernels

CUDA = torch.device("cuda")
BF16, FP8 = torch.bfloat16, torch.float8_e4m3fn
SHAPES = {"attention": (5120, 5120), "ffn up": (5120, 13_824), "ffn down": (13_824, 5120)}
CHECKED = 2048
Result = dict[str, object]
Results = Iterator[tuple[Result, Callable[[], Result]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--tokens", type=int, default=33_600, help="of a window; 33600 are 640x640, 75600 are 960x960")
    parser.add_argument("--out", type=Path, help="file that the lines are appended to")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_grad_enabled(False)
    torch.backends.cuda.matmul.allow_tf32 = False
    for part in options.parts:
        start = time.perf_counter()
        try:
            for what, work in PARTS[part](options.tokens):
                tell(options.out, {"part": part, **what, **attempt(work)})
        except Exception as error:
            tell(options.out, {"part": part, "failed": f"{type(error).__name__}: {error}"[:500]})
        tell(options.out, {"part": part, "took": round(time.perf_counter() - start, 1)})
        torch.cuda.empty_cache()


def tell(out: Path | None, result: Result) -> None:
    line = json.dumps(result)
    print(line, flush=True)
    if out:
        with out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def attempt(work: Callable[[], Result]) -> Result:
    try:
        return work()
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"[:500]}


def seconds(work: Callable[[], object]) -> float:
    """Median of single runs, for about a fifth of a second after two to warm up."""
    times: list[float] = []
    work()
    work()
    while len(times) < 5 or (sum(times) < 0.2 and len(times) < 100):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1000)
    return statistics.median(times)


def speed(work: Callable[[], object], operations: float = 0, moved: float = 0) -> Result:
    """Milliseconds, and the rate of arithmetic operations and of bytes."""
    took = seconds(work)
    found: Result = {"ms": round(took * 1000, 4)}
    if operations:
        found["TFLOP/s"] = round(operations / took / 1e12, 1)
    if moved:
        found["GB/s"] = round(moved / took / 1e9)
    return found


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return round(((found.float() - expected).norm() / expected.norm()).item(), 6)


def exact(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """``x W^T`` in float32."""
    return F.linear(x.float(), matrix.float())


def random_activations(tokens: int, channels: int, loud: bool = False) -> torch.Tensor:
    x = torch.randn(tokens, channels, device=CUDA)
    if loud:
        x *= torch.randn(tokens, 1, device=CUDA).exp()
        x[:, :: channels // 8] *= 30
    return x.bfloat16()


def matrix(inputs: int, outputs: int) -> torch.Tensor:
    return torch.randn(outputs, inputs, device=CUDA) * 0.02


def blocks_of_gguf(name: str, weights: torch.Tensor) -> Packed:
    """Q8_0: the nearest blocks. Others: blocks of random bytes with small scales, good for times alone."""
    storage = STORAGES[name]
    blocks_of = storage.facts.blocks
    if name == "Q8_0":
        blocks = weights.unflatten(1, (-1, 32))
        scale = (blocks.abs().amax(-1, keepdim=True) / 127).half()
        numbers = (blocks / scale.float()).round().to(torch.int8)
        stored = torch.cat([scale.view(torch.uint8), numbers.view(torch.uint8)], dim=-1)
    else:
        stored = torch.randint(
            0, 256, (len(weights), weights.shape[1] // blocks_of.weights, blocks_of.size), device=CUDA
        )
        stored = stored.to(torch.uint8)
        stored[..., :4] = torch.tensor([0.001, 0.001], dtype=torch.float16, device=CUDA).view(torch.uint8)
    return Packed(storage, {"weight": stored.flatten(1)}, tuple(weights.shape))


def choice(tokens: int) -> Results:
    """What is chosen on this card and why, and how long finding it out takes."""

    def environment() -> Result:
        capability = torch.cuda.get_device_capability()
        return {"card": torch.cuda.get_device_name(), "capability": capability, "torch": torch.__version__}

    def chosen(storage: object) -> Result:
        start = time.perf_counter()
        way = choose_matmuls("auto", CUDA, BF16).of(storage)
        took = time.perf_counter() - start
        return {"name": way.name, "reason": way.reason, "probe (s)": round(took, 2), "type": type(way).__name__}

    yield {"what": "environment"}, environment
    for storage in (FP8_E4M3, FP8_E5M2, INT8, STORAGES["Q8_0"]):
        yield {"what": storage.name}, partial(chosen, storage)


def quantising(tokens: int) -> Results:
    """Activations to 8 bits: bytes read and written once."""
    kernels = triton_kernels(CUDA)
    for channels in (5120, 13_824):
        x = random_activations(tokens, channels)
        for kind in (FP8, torch.int8):
            named = {"rows": str(kind), "channels": channels}
            moved = x.nbytes + x.numel()
            ways = {"plain": quantise_rows}
            if not isinstance(kernels, Unavailable):
                ways["Triton"] = kernels.quantise_rows
            for how, quantise in ways.items():
                yield {"what": how, **named}, partial(speed, partial(quantise, x, kind), moved=moved)


def candidates() -> dict[str, Callable[[], Product]]:
    """Every product that could be chosen, by name."""
    kernels = triton_kernels(CUDA)
    quantise, plain_rescale = getattr(kernels, "quantise_rows", quantise_rows), products._rescale_by_parts

    def fp8(function: Callable[..., torch.Tensor]) -> Product:
        return Product("fp8", "", FP8, quantise, function)

    def int8(function: Callable[..., torch.Tensor]) -> Product:
        return Product("int8", "", torch.int8, quantise, function)

    def with_sums(fast: bool, *arguments: object) -> torch.Tensor:
        with mock.patch.object(products, "FAST_SUMS", fast):
            return products.scaled_rows(*arguments)

    def in_parts(at_once: int, *arguments: object) -> torch.Tensor:
        with mock.patch.object(activations, "AT_ONCE", at_once):
            return products.integer_sums(*arguments)

    return {
        "fp8 row-wise, fast sums": lambda: fp8(partial(with_sums, True)),
        "fp8 row-wise, slow sums": lambda: fp8(partial(with_sums, False)),
        "fp8 single scales, rescaled by Triton": lambda: fp8(partial(products.scaled_after, rescale=kernels.rescale)),
        "fp8 single scales, rescaled plainly": lambda: fp8(partial(products.scaled_after, rescale=plain_rescale)),
        "int8 Triton": lambda: int8(kernels.int8_product),
        "int8 torch._int_mm, parts of 2^22": lambda: int8(partial(in_parts, 2**22)),
        "int8 torch._int_mm, parts of 2^23": lambda: int8(partial(in_parts, 2**23)),
        "int8 torch._int_mm, parts of 2^25": lambda: int8(partial(in_parts, 2**25)),
    }


@dataclass(frozen=True)
class Layer:
    """Inputs of a layer, and what is right on the first tokens."""

    x: torch.Tensor
    loud: torch.Tensor
    whole: torch.Tensor
    bias: torch.Tensor
    expected: torch.Tensor
    expected_loud: torch.Tensor

    @property
    def operations(self) -> float:
        return 2.0 * len(self.x) * self.whole.numel()


def layer_of(tokens: int, inputs: int, outputs: int) -> Layer:
    x, loud, whole = (
        random_activations(tokens, inputs),
        random_activations(CHECKED, inputs, loud=True),
        matrix(inputs, outputs),
    )
    bias = torch.randn(outputs, device=CUDA).bfloat16()
    return Layer(x, loud, whole, bias, exact(x[:CHECKED], whole), exact(loud, whole))


def measure_floats(layer: Layer) -> Result:
    half = layer.whole.bfloat16()
    found = speed(partial(F.linear, layer.x, half, layer.bias), layer.operations)
    return {
        **found,
        "error": relative_error(F.linear(layer.x[:CHECKED], half), layer.expected),
        "loud": relative_error(F.linear(layer.loud, half), layer.expected_loud),
    }


def measure_product(make: Callable[[], Product], layer: Layer) -> Result:
    product = make()
    packed = (pack_int8 if product.activations == torch.int8 else pack_fp8)(layer.whole)
    multiply = EightBit(product, ReadBack("", partial(unpack_by_parts, packed.storage)), few_rows=0)
    made = product.quantise(layer.x, product.activations)
    weight, scale = packed.parts["weight"], packed.parts["scale"]
    alone = speed(lambda: product.function(made, weight, scale, layer.bias, BF16), layer.operations)
    with_rows = speed(lambda: multiply(layer.x, packed.parts, layer.bias), layer.operations)
    some = Quantised(made.values[:CHECKED], made.scale[:CHECKED])
    sums = product.function(some, weight, scale, None, BF16).float()
    right = exact(some.values.float() * some.scale, packed.unpacked())
    return {
        **alone,
        **{f"with quantising, {unit}": value for unit, value in with_rows.items()},
        "error": relative_error(multiply(layer.x[:CHECKED], packed.parts, None), layer.expected),
        "loud": relative_error(multiply(layer.loud, packed.parts, None), layer.expected_loud),
        "sums": relative_error(sums, right),
        "slope": round(((sums * right).sum() / right.square().sum()).item(), 6),
    }


def multiplying(tokens: int) -> Results:
    """Every product beside bf16: alone, and with the quantising of its input."""
    for name, (inputs, outputs) in SHAPES.items():
        shape = f"{name} {tokens}x{inputs}->{outputs}"
        layer = layer_of(tokens, inputs, outputs)
        yield {"what": "bf16", "shape": shape}, partial(measure_floats, layer)
        for candidate, make in candidates().items():
            yield {"what": candidate, "shape": shape}, partial(measure_product, make, layer)


def measure_reading_back(packed: Packed, unpack: Callable[..., torch.Tensor], layer: Layer) -> Result:
    multiply = ReadBack("", unpack)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    unpack(packed.parts, BF16)
    peak = round((torch.cuda.max_memory_allocated() - before) / 2**20)
    alone = speed(partial(unpack, packed.parts, BF16), moved=packed.nbytes + 2 * layer.whole.numel())
    in_layer = speed(partial(multiply, layer.x, packed.parts, None), layer.operations)
    found = {**alone, "peak (MiB)": peak, **{f"layer, {unit}": value for unit, value in in_layer.items()}}
    if "Q4_K" not in packed.storage.name:
        found["error"] = relative_error(multiply(layer.x[:CHECKED], packed.parts, None), layer.expected)
    return found


def reading_back(tokens: int) -> Results:
    """Matrices read back to bf16, alone and in a layer."""
    kernels = triton_kernels(CUDA)
    for name, (inputs, outputs) in SHAPES.items():
        layer = layer_of(tokens, inputs, outputs)
        stored = [pack_fp8(layer.whole), pack_int8(layer.whole)]
        for packed in [*stored, *(blocks_of_gguf(form, layer.whole) for form in ("Q8_0", "Q4_K"))]:
            ways = {"plain": partial(unpack_by_parts, packed.storage)}
            if packed.storage in (FP8_E4M3, INT8) and not isinstance(kernels, Unavailable):
                ways["Triton"] = kernels.unpack
            for how, unpack in ways.items():
                named = {"what": f"{packed.storage.name}, {how}", "matrix": f"{name} {inputs}->{outputs}"}
                yield named, partial(measure_reading_back, packed, unpack, layer)


def tiling(tokens: int) -> Results:
    """The Triton int8 product in other tiles than those that are used."""
    from ..pipeline.quantisation.matmul_triton import Tile, int8_product

    tiles = [
        Tile(128, 256, 128, stages=4, warps=8),
        Tile(128, 256, 128, stages=3, warps=8),
        Tile(256, 128, 128, stages=3, warps=8),
        Tile(256, 128, 128, stages=4, warps=8),
        Tile(128, 256, 64, stages=4, warps=8),
        Tile(128, 256, 64, stages=3, warps=8),
        Tile(128, 128, 128, stages=4, warps=8),
        Tile(128, 128, 128, stages=3, warps=4),
        Tile(128, 128, 64, stages=4, warps=4),
    ]
    tiles += [replace(tiles[0], group=group) for group in (1, 4, 16, 32)]
    for name, (inputs, outputs) in SHAPES.items():
        parts = pack_int8(matrix(inputs, outputs)).parts
        made = quantise_rows(random_activations(tokens, inputs), torch.int8)
        for tile in tiles if name != "ffn down" else tiles[:6]:
            work = partial(int8_product, made, parts["weight"], parts["scale"], None, BF16, tile)
            named = {"shape": f"{name} {inputs}->{outputs}", **asdict(tile)}
            yield named, partial(speed, work, 2.0 * tokens * inputs * outputs)


def few_rows(tokens: int) -> Results:
    """Where 8-bit products overtake reading the matrix back; text, image and speech have 512, 257 and 672 rows."""
    whole = {"text or image": matrix(5120, 5120), "speech": matrix(768, 10_240)}
    for name, weights in whole.items():
        for count in (257, 512, 672, 1024, 2048, 4096):
            x = random_activations(count, weights.shape[1])
            for packed in (pack_fp8(weights), pack_int8(weights)):
                layer = choose_matmuls("auto", CUDA, BF16).of(packed.storage)
                if not isinstance(layer, EightBit):
                    continue
                for what, way in {"8 bits": replace(layer, few_rows=0), "read back": layer.otherwise}.items():
                    work = partial(way, x, packed.parts, None)
                    named = {"what": f"{packed.storage.name}, {what}", "rows": count, "matrix": name}
                    yield named, partial(speed, work, 2.0 * count * weights.numel())


def sharing(tokens: int) -> Results:
    """Queries, keys and values of self-attention: the input quantised three times and once."""
    x = random_activations(tokens, 5120)
    for pack, kind in ((pack_fp8, FP8), (pack_int8, torch.int8)):
        if isinstance(find_product(kind, CUDA), Unavailable):
            continue
        three = [pack(matrix(5120, 5120)) for _ in range(3)]
        multiply = choose_matmuls("auto", CUDA, BF16).of(three[0].storage)
        for how, wrap in {"three times": lambda x: x, "once": Activation}.items():
            work = partial(queries_keys_values, multiply, three, wrap, x)
            yield {"what": f"{multiply.name}, {how}"}, partial(speed, work, 3 * 2.0 * tokens * 5120**2)


def queries_keys_values(
    multiply: Multiply, three: list[Packed], wrap: Callable[[torch.Tensor], torch.Tensor | Activation], x: torch.Tensor
) -> None:
    shared = wrap(x)
    for packed in three:
        multiply(shared, packed.parts, None)


def in_kernels(tokens: int) -> Results:
    """Rows that norms and GELU give on the way, beside those that the layers make of floats: alone, and in a block."""
    pointwise, quantise = choose_pointwise("triton", CUDA), triton_kernels(CUDA).quantise_rows
    x, hidden = random_activations(tokens, 5120), random_activations(next(token_slices(tokens)).stop, 13_824)
    scale, shift = (torch.randn(1, 5120, device=CUDA) for _ in range(2))
    functions = {
        "norm": lambda kind: pointwise.norm(x, scale, shift, 1e-6, kind),
        "GELU of a part of the tokens": lambda kind: pointwise.gelu(hidden, kind),
    }
    for kind in (FP8, torch.int8):
        for name, function in functions.items():
            by_layers, on_the_way = (
                lambda wanted=wanted, kind=kind, function=function: function(wanted).quantised(kind, quantise)
                for wanted in (None, kind)
            )
            named = {"what": name, "rows": str(kind)}
            yield {**named, "how": "by the layers"}, partial(speed, by_layers)
            yield {**named, "how": "on the way"}, partial(speed, on_the_way)
            yield {**named, "how": "share that differs"}, partial(differing, by_layers, on_the_way)
    for kept, attention in (("fp8", "cudnn"), ("int8", "cudnn"), ("fp8", "cudnn_fp8")):
        for how in ("by the layers", "on the way") * 2:
            named = {"what": "block", "rows": kept, "attention": attention, "how": how}
            yield named, partial(block, kept, attention, how == "on the way", tokens)


def differing(way: Callable[[], Quantised], other: Callable[[], Quantised]) -> Result:
    pairs = zip(way(), other(), strict=True)
    values, scales = ((a.float() != b.float()).float().mean().item() for a, b in pairs)
    return {"values": values, "scales": scales}


def block(kept: str, attention: str, on_the_way: bool, tokens: int) -> Result:
    side = 16 * math.isqrt(tokens // 21)
    asking_for_floats = mock.patch.object(Linear, "quantised_dtype", lambda layer, count: None)
    with nullcontext() if on_the_way else asking_for_floats:
        took = time_block(kept, Sizes(WAN_14B, 96, side, side, 81), CUDA, BF16, attention)
    return {"ms": round(1000 * took, 2)}


PARTS = {
    "choice": choice,
    "activations": quantising,
    "products": multiplying,
    "weights": reading_back,
    "few": few_rows,
    "sharing": sharing,
    "kernels": in_kernels,
    "tiles": tiling,
}

if __name__ == "__main__":
    main()
