"""Whether torch.compile or CUDA graphs make a block of real size faster, and what they cost before that.

    python -m infinitetalk.benchmarks.compiled [--sides 320 640] [--quant fp8]

One transformer block with random weights, one pass: as the engine runs it, with the plain kernels compiled by
torch.compile (which fuses what lies between the products by itself), and the engine's own as a CUDA graph.
Prints milliseconds, what compiling took, and after how many forwards of 40 blocks it has paid for itself.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import nn

from ..pipeline.commands.timing import PROMPT_TOKENS
from ..pipeline.facts.model_sizes import WAN_14B
from ..pipeline.models.transformer.block import IMAGE_LAYERS, TEXT_LAYERS, Block
from ..pipeline.models.transformer.linear import Linear
from ..pipeline.models.transformer.rope import rope_table
from ..pipeline.planning.machine import choose_operations
from ..pipeline.planning.windows import latent_frames
from ..pipeline.quantisation.codes import QUANTISERS, pack
from ..pipeline.quantisation.matmul import choose_matmuls
from ..pipeline.settings.definition import Settings
from .real_size import CUDA, randomise, seconds

FRAMES = 81


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[320, 640], help="pixels")
    parser.add_argument("--quant", choices=list(QUANTISERS))
    options = parser.parse_args()
    torch.set_grad_enabled(False)
    block = random_block(options.quant)
    for side in options.sides:
        run = {kernels: forward(block, side, kernels) for kernels in ("auto", "plain")}
        usual = seconds(run["auto"])
        print(f"{side}x{side}: as it is {1000 * usual:.2f} ms, plain {1000 * seconds(run['plain']):.2f} ms", flush=True)
        for name, make in {"torch.compile": compiled, "CUDA graph": captured}.items():
            start = time.perf_counter()
            try:
                work = make(run["plain" if name == "torch.compile" else "auto"])
                work()
                torch.cuda.synchronize()
                took = time.perf_counter() - start
                found = seconds(work)
            except Exception as error:
                print(f"  {name}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
                continue
            gain = WAN_14B.num_layers * (usual - found)
            after = f"pays after {took / gain:.0f} forwards" if gain > 0 else "never pays"
            print(f"  {name}: {1000 * found:.2f} ms, ready after {took:.1f} s, {after}", flush=True)


def random_block(quant: str | None) -> Block:
    with torch.device("meta"):
        block = Block(WAN_14B)
    block = block.to(torch.bfloat16).to_empty(device=CUDA).requires_grad_(False)
    randomise(block)
    block.modulation = nn.Parameter(block.modulation.float(), requires_grad=False)
    matmuls = choose_matmuls("auto", CUDA, torch.bfloat16)
    for layer in block.modules():
        if quant is not None and isinstance(layer, Linear):
            packed = pack(QUANTISERS[quant], layer.weight.data)
            layer.store(packed, matmuls.of(packed.storage))
    return block


def forward(block: Block, side: int, kernels: str) -> Callable[[], None]:
    """One pass of the block over a window of side x side pixels, its tensors bound."""
    config = WAN_14B
    operations = choose_operations(Settings(kernels=kernels), CUDA, torch.bfloat16)
    grid = latent_frames(FRAMES), side // 16, side // 16

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=CUDA, dtype=torch.bfloat16)

    x, moment = noise(grid[0] * grid[1] * grid[2], config.dim), torch.randn(1, 6, config.dim, device=CUDA)
    text = block.cross_attn.keys_and_values(noise(PROMPT_TOKENS, config.dim), TEXT_LAYERS)
    image = block.cross_attn.keys_and_values(noise(257, config.dim), IMAGE_LAYERS)
    audio = noise(grid[0], config.audio_tokens, config.audio_dim)
    rope = rope_table(grid, config.head_dim, CUDA)
    return lambda: block(x, moment, rope, text, image, audio, operations)


def compiled(work: Callable[[], None]) -> Callable[[], None]:
    torch._dynamo.reset()
    return torch.compile(work)


def captured(work: Callable[[], None]) -> Callable[[], None]:
    """The work's kernels as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


if __name__ == "__main__":
    main()
