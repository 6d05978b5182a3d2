"""The fused kernels against plain PyTorch: run by Triton's interpreter on a CPU, by the card where there is one."""

import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.models.transformer.pointwise import PlainPointwise, choose_pointwise
from infinitetalk.pipeline.models.transformer.rope import rope_table
from infinitetalk.pipeline.quantisation.activations import floats

EPS = 1e-6
TOKENS, DIM, HEADS = 24, 96, 4


def compare(fused, device, dtype):
    """Largest differences of the six functions, relative to the largest value."""
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
        return [changed] if given is None else [changed, floats(given)]

    calls = {
        "norm": lambda ops: [floats(ops.norm(x, scale, shift, EPS)), floats(ops.norm(x, weight, bias, EPS))],
        "add": lambda ops: in_place(ops.add, gate),
        "add_norm": lambda ops: [
            *in_place(ops.add_norm, gate, scale, shift, EPS),
            *in_place(ops.add_norm, None, weight, bias, EPS),
        ],
        "norm_rotate": lambda ops: [ops.norm_rotate(x.clone(), weight, rope, HEADS, EPS)],
        "rotate": lambda ops: [ops.rotate(x.clone().unflatten(-1, (HEADS, -1)), rope)],
        "gelu": lambda ops: [floats(ops.gelu(x.clone()))],
    }
    errors = {}
    for name, call in calls.items():
        pairs = list(zip(call(fused), call(plain), strict=True))
        assert all(a.dtype == b.dtype == dtype and a.shape == b.shape for a, b in pairs), name
        errors[name] = max(((a.float() - b.float()).abs().max() / b.float().abs().max()).item() for a, b in pairs)
    assert torch.equal(x, before)
    return errors


def compare_rows(fused, device, dtype, kind, dim=DIM, tokens=TOKENS):
    """How many 8-bit numbers that are made on the way differ from those made of the floats afterwards, at most by one.

    Returns:
        By function, shares of numbers that differ.
    """
    from infinitetalk.pipeline.quantisation.matmul_triton import quantise_rows

    torch.manual_seed(0)
    scale, shift, gate = (torch.randn(1, dim, device=device) for _ in range(3))
    weight, bias = (torch.randn(dim, device=device).to(dtype) for _ in range(2))
    x, y = (torch.randn(tokens, dim, device=device).mul_(3).to(dtype) for _ in range(2))
    x[3] = 0
    calls = {
        "norm": lambda x, y, quantised: fused.norm(x, scale, shift, EPS, quantised),
        "add_norm": lambda x, y, quantised: fused.add_norm(x, y, gate, scale, shift, EPS, quantised),
        "add_norm without a gate": lambda x, y, quantised: fused.add_norm(x, y, None, weight, bias, EPS, quantised),
        "gelu": lambda x, y, quantised: fused.gelu(x, quantised),
    }
    shares = {}
    for name, call in calls.items():
        sums, sum_too = x.clone(), x.clone()
        made, kept = call(sums, y.clone(), kind), floats(call(sum_too, y.clone(), None))
        assert torch.equal(sums, sum_too), name
        assert (made.values.shape, made.values.dtype, made.values.is_meta) == (kept.shape, dtype, True), name
        found, expected = made.quantised(kind, None), quantise_rows(kept, kind)
        assert (found.values.dtype, found.scale.shape) == (kind, (tokens, 1))
        assert torch.allclose(found.scale, expected.scale, rtol=max(2e-6, torch.finfo(dtype).eps), atol=0), name
        assert (places(found.values) - places(expected.values)).abs().max() <= 1, name
        shares[name] = (found.values.float() != expected.values.float()).float().mean().item()
    return shares


def places(values):
    """8-bit numbers as integers: neighbours differ by one."""
    bits = values.view(torch.int8).int()
    return bits if values.dtype == torch.int8 else bits.where(bits >= 0, -128 - bits)


INTERPRETED = """
import torch, test_pointwise
from infinitetalk.pipeline.models.transformer.pointwise_triton import TritonPointwise
for dtype, bound in ((torch.float32, 2e-6), (torch.bfloat16, 1e-2)):
    errors = test_pointwise.compare(TritonPointwise(""), "cpu", dtype)
    assert max(errors.values()) < bound, (dtype, errors)
    shares = test_pointwise.compare_rows(TritonPointwise(""), "cpu", dtype, torch.int8, tokens=6)
    # The interpreter cuts numbers off where a card rounds them to bf16, PyTorch rounds GELU's.
    assert shares.pop("gelu") < (1e-2 if dtype == torch.float32 else 1), dtype
    assert max(shares.values()) == 0, (dtype, shares)
"""


def test_fused_kernels_equal_plain_pytorch_in_the_interpreter(interpreted):
    interpreted(INTERPRETED)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 2e-6), (torch.bfloat16, 1e-2)])
def test_fused_kernels_equal_plain_pytorch_on_the_card(dtype, bound):
    errors = compare(choose_pointwise("triton", torch.device("cuda")), "cuda", dtype)
    assert max(errors.values()) < bound, errors


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize("dim", [DIM, 5120, 13_824])
@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
def test_rows_made_on_the_way_are_those_of_the_floats_on_the_card(kind, dim):
    if kind == torch.float8_e4m3fn and torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("needs a card with fp8 products")
    for dtype in (torch.float32, torch.bfloat16):
        shares = compare_rows(choose_pointwise("triton", torch.device("cuda")), "cuda", dtype, kind, dim)
        print(f"\n{dtype} to {kind}, {dim} channels: differing {shares}")
        # The compiler may add up a row in another order where it stores 8 bits.
        assert max(shares.values()) < 1e-2, (dtype, shares)


def test_choice_is_explained():
    chosen = choose_pointwise("auto", torch.device("cpu"))
    assert (chosen.name, "CUDA" in chosen.reason) == ("plain", True)
    with pytest.raises(InputError, match="--kernels triton: .* Use --kernels plain"):
        choose_pointwise("triton", torch.device("cpu"))
