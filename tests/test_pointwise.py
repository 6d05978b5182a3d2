"""The fused kernels against plain PyTorch: run by Triton's interpreter on a CPU, by the card where there is one."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.models.pointwise import PlainPointwise, choose_pointwise
from infinitetalk.pipeline.models.rope import rope_table

EPS = 1e-6
TOKENS, DIM, HEADS = 24, 96, 4


def compare(fused, device, dtype):
    """Largest differences of the four functions, relative to the largest value."""
    torch.manual_seed(0)
    plain = PlainPointwise("")

    def random(*shape, dtype=torch.float32):
        return torch.randn(*shape).to(device, dtype)

    scale, shift, gate = 1 + random(1, DIM), random(1, DIM), random(1, DIM)
    weight, bias = random(DIM, dtype=dtype), random(DIM, dtype=dtype)
    rope = rope_table((2, 3, 4), DIM // HEADS, device)
    x, y = 3 * random(TOKENS, DIM, dtype=dtype) + 1, random(TOKENS, DIM, dtype=dtype)
    before = x.clone()

    def in_place(function, *arguments):
        """What becomes of ``x``, and what is given back."""
        changed = x.clone()
        given = function(changed, y.clone(), *arguments)
        return [changed] if given is None else [changed, given]

    calls = {
        "norm": lambda ops: [ops.norm(x, scale, shift, EPS), ops.norm(x, weight, bias, EPS)],
        "add": lambda ops: in_place(ops.add, gate),
        "add_norm": lambda ops: [
            *in_place(ops.add_norm, gate, scale, shift, EPS),
            *in_place(ops.add_norm, None, weight, bias, EPS),
        ],
        "norm_rotate": lambda ops: [ops.norm_rotate(x.clone(), weight, rope, HEADS, EPS)],
    }
    errors = {}
    for name, call in calls.items():
        pairs = list(zip(call(fused), call(plain), strict=True))
        assert all(a.dtype == b.dtype == dtype and a.shape == b.shape for a, b in pairs), name
        errors[name] = max(((a.float() - b.float()).abs().max() / b.float().abs().max()).item() for a, b in pairs)
    assert torch.equal(x, before)
    return errors


INTERPRETED = """
import sys
sys.path.insert(0, {folder!r})
import torch, test_pointwise
from infinitetalk.pipeline.models.triton_kernels import TritonPointwise
for dtype, bound in ((torch.float32, 2e-6), (torch.bfloat16, 1e-2)):
    errors = test_pointwise.compare(TritonPointwise(""), "cpu", dtype)
    assert max(errors.values()) < bound, (dtype, errors)
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="needs the package triton (comes with PyTorch's CUDA build)")
def test_fused_kernels_equal_plain_pytorch_in_the_interpreter():
    script = INTERPRETED.format(folder=str(Path(__file__).parent))
    run = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr[-2000:]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_fused_kernels_equal_plain_pytorch_on_the_card(dtype, bound):
    errors = compare(choose_pointwise("triton", torch.device("cuda")), "cuda", dtype)
    assert max(errors.values()) < bound, errors


def test_choice_is_explained():
    chosen = choose_pointwise("auto", torch.device("cpu"))
    assert (chosen.name, "CUDA" in chosen.reason) == ("plain", True)
    with pytest.raises(InputError, match="--kernels triton: .* Use --kernels plain"):
        choose_pointwise("triton", torch.device("cpu"))
