"""The fused kernels at the real model's sizes, compiled for cards that need not be there.

What fits an H200 may not fit an RTX card, whose programs have 99 KiB of shared memory instead of 227. Triton compiles
for any card without one, so kernels are launched as ever, and nothing is run.
"""

import json
import subprocess
import sys

import pytest
import torch

KIB = 1024
CARDS = {"8.6 (RTX 30xx)": 99, "8.9 (RTX 40xx)": 99, "12.0 (RTX 50xx)": 99}  # shared memory of a program
MODULES = (
    *("models.transformer.few_keys_triton", "models.transformer.pointwise_triton"),
    *("models.vae.kernels_triton", "quantisation.matmul_triton"),
)
TOKENS = 512


def compiled(capability):
    """Launch every kernel for this card. Returns those kernels' names, the shared memory of each in bytes, and names
    of kernels that were not launched."""
    from importlib import import_module

    from triton.backends.compiler import GPUTarget
    from triton.runtime import JITFunction, driver

    major, minor = map(int, capability.split("."))

    class NoCard:
        def get_current_device(self):
            return 0

        def get_current_stream(self, _device):
            return 0

        def get_current_target(self):
            return GPUTarget("cuda", 10 * major + minor, 32)

    used = {}

    def compile_only(kernel, *args, grid, warmup, run=JITFunction.run, **options):
        made = run(kernel, *args, grid=grid, warmup=True, **options)
        used[kernel.__name__] = max(used.get(kernel.__name__, 0), made.metadata.shared)
        return made

    driver.set_active(NoCard())
    JITFunction.run = compile_only
    torch.cuda.get_device_capability = lambda *_: (major, minor)
    modules = [import_module(f"infinitetalk.pipeline.{name}") for name in MODULES]
    launch(*modules, {torch.int8} | ({torch.float8_e4m3fn} if (major, minor) >= (8, 9) else set()))
    names = {name for module in modules for name in vars(module) if name.endswith("_kernel")}
    return used, sorted(names - used.keys())


def launch(few_keys, pointwise, vae, matmul, eight_bits):
    """As the 14B model does, in bf16 with fewer tokens.

    Args:
        eight_bits: the types to which this card can round.
    """

    def made(*shape, dtype=torch.bfloat16):
        return torch.empty(shape, dtype=dtype)

    dim, wide, heads = 5120, 13824, 40
    few_keys.fold(made(21, 32, heads, 128), made(heads, 128, dim))
    scores = made(3, TOKENS, 32 * heads, dtype=torch.float32)
    few_keys.weigh(scores, made(3, 32 * heads, dtype=torch.float32), 0.1, heads, torch.bfloat16)
    few_keys.sum_of_two(made(TOKENS, heads, 128), made(2, 200, heads, 128), 300, made(2, 257, heads, 128))
    x, row, between = made(TOKENS, dim), made(dim, dtype=torch.float32), pointwise.TritonPointwise("")
    for into in (None, *eight_bits):
        between.add_norm(x, x, row, row, row, 1e-6, into)
        between.gelu(made(TOKENS, wide), into)
    between.norm_rotate(x, made(dim), made(TOKENS, 64, dtype=torch.complex64), heads, 1e-6)
    for into in eight_bits:
        matmul.quantise_rows(made(TOKENS, wide), into)
    if torch.float8_e4m3fn in eight_bits:
        pointwise.scaled_cast(x, row, torch.float8_e4m3fn)
    for kept in (torch.int8, torch.float8_e4m3fn):
        matmul.unpack({"weight": made(dim, wide, dtype=kept), "scale": row}, torch.bfloat16)
    matmul.rescale(x, made(TOKENS, dtype=torch.float32), row, made(dim), x)
    eight = matmul.Quantised.like(x, torch.int8)
    matmul.int8_product(eight, made(dim, dim, dtype=torch.int8), row, made(dim), torch.bfloat16)
    kernels = vae.TritonVaeKernels("")
    vae.convolve_finest(made(1, 96, 6, 32, 32), made(96, 96, 3, 3, 3))
    for channels, dtype in ((96, torch.bfloat16), (384, torch.float32)):
        features = made(1, channels, 4, 32, 32, dtype=dtype).contiguous(memory_format=torch.channels_last_3d)
        bias = made(channels, dtype=dtype)
        kernels.norm_silu(features, bias, bias, None, 2)
        kernels.add(features, bias, features)
        kernels.double(features, bias, 1)


@pytest.mark.parametrize(
    "card", [pytest.param(card, marks=[pytest.mark.long] * (not card.startswith("8.9"))) for card in CARDS]
)
def test_kernels_fit_the_cards_that_users_have(card):
    triton = pytest.importorskip("triton", reason="needs the package triton (comes with PyTorch's CUDA build)")
    if card.startswith("12") and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
        pytest.skip("needs Triton 3.3, which knows this card")
    done = subprocess.run([sys.executable, __file__, card.split()[0]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    used, left = json.loads(done.stdout)
    assert left == ([] if not card.startswith("8.6") else ["_scaled_cast_kernel"])  # of fp8 attention
    assert len(used) >= 13
    assert {name: size for name, size in used.items() if size > CARDS[card] * KIB} == {}


if __name__ == "__main__":
    json.dump(compiled(sys.argv[1]), sys.stdout)
