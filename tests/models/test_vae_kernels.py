"""The VAE's fused kernels against plain PyTorch: in Triton's interpreter on a CPU, on the card where there is one."""

import pytest
import torch
from infinitetalk.pipeline.models.vae.kernels import PlainVaeKernels, channels, choose_vae_kernels, convolve

BOUNDS = [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)]  # plain PyTorch rounds after each of five operations


SHAPES = (24, 4, 3, 5), (96, 1, 9, 5), (8, 2, 1, 1), (12, 3, 17, 16)


def compare(fused, device, dtype, shapes=SHAPES):
    """Largest differences of the functions, relative to the largest value."""
    torch.manual_seed(0)
    plain = PlainVaeKernels("")
    errors = {}

    def note(name, found, expected):
        assert found.dtype == expected.dtype == dtype and found.shape == expected.shape, name
        difference = (found.float() - expected.float()).abs().max() / expected.float().abs().max()
        errors[name] = max(errors.get(name, 0), difference.item())

    def features(*shape):
        return torch.randn(1, *shape).to(device, dtype).contiguous(memory_format=torch.channels_last_3d)

    for c, t, h, w in shapes:
        gamma, bias = torch.randn(c, 1, 1, 1).to(device, dtype), torch.randn(c).to(device, dtype)
        larger = features(c, t, h + 3, w + 2)
        for x in (features(c, t, h, w), larger[..., 2:-1, 1:-1], features(c, t, h, w).contiguous()):
            before = x.clone()
            for added in (None, bias):
                pasts = {fused: None, plain: None}
                for piece in (x, 2 * x, x[:, :, :1], x):  # each remembers for the next
                    found, pasts[fused] = fused.norm_silu(piece, added, gamma, pasts[fused], 2)
                    expected, pasts[plain] = plain.norm_silu(piece, added, gamma, pasts[plain], 2)
                    note("norm_silu", found, expected)
                    note("past", pasts[fused], pasts[plain])
                h_ = features(c, t, h, w)
                note("add", fused.add(h_.clone(), added, x), plain.add(h_.clone(), added, x))
                note("double", fused.double(x, added, 1), plain.double(x, added, 1))
                note("double in time", fused.double(x, added, 2), plain.double(x, added, 2))
            assert torch.equal(x, before)
    return errors


def compare_convolutions(device, dtype):
    """Differences of the finest convolution, relative to the largest value, where patches end outside."""
    from infinitetalk.pipeline.models.vae.kernels_triton import convolve_finest

    torch.manual_seed(0)
    errors = []
    for t, h, w in ((3, 5, 33), (6, 8, 32)) if device != "cpu" else ((3, 5, 33),):
        joined = torch.randn(1, 96, t, h, w).to(device, dtype)
        weight = (torch.randn(96, 96, 3, 3, 3) / 51).to(device, dtype)
        found, expected = convolve_finest(joined, weight).float(), convolve(joined.float(), weight.float(), None, 1)
        assert found.shape == expected.shape
        errors.append(((found - expected).abs().max() / expected.abs().max()).item())
    return max(errors)


INTERPRETED = """
import torch, test_vae_kernels
from infinitetalk.pipeline.models.vae.kernels_triton import TritonVaeKernels
assert test_vae_kernels.compare_convolutions("cpu", torch.float16) < 2e-3  # it has no products in bfloat16
for (dtype, bound), shapes in zip(test_vae_kernels.BOUNDS, (test_vae_kernels.SHAPES, test_vae_kernels.SHAPES[:1])):
    errors = test_vae_kernels.compare(TritonVaeKernels(""), "cpu", dtype, shapes)
    assert max(errors.values()) < bound, (dtype, errors)
"""


def test_fused_kernels_equal_plain_pytorch_in_the_interpreter(interpreted):
    interpreted(INTERPRETED)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize(("dtype", "bound"), BOUNDS)
def test_fused_kernels_equal_plain_pytorch_on_the_card(dtype, bound):
    errors = compare(choose_vae_kernels("triton", torch.device("cuda")), "cuda", dtype)
    assert max(errors.values()) < bound, errors


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 1e-3), (torch.bfloat16, 4e-3)])
def test_the_finest_convolution_is_cudnns_on_the_card(dtype, bound):
    assert compare_convolutions("cuda", dtype) < bound


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_attention_of_wide_heads_rounds_once_more_on_the_card(monkeypatch):
    from infinitetalk.pipeline.models.vae import kernels_triton

    monkeypatch.setattr(kernels_triton, "_QUERIES", 1000)  # in parts, the last one shorter
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 1, 1300, 384, device="cuda").bfloat16()
    found = kernels_triton.attend_wide(q, k, v).float()
    expected = torch.nn.functional.scaled_dot_product_attention(q.float(), k.float(), v.float())
    assert found.shape == expected.shape and (found - expected).norm() / expected.norm() < 5e-3


def test_choice_is_explained():
    for name in ("auto", "triton"):
        chosen = choose_vae_kernels(name, torch.device("cpu"))
        assert (chosen.name, "CUDA" in chosen.reason) == ("plain", True)
    assert choose_vae_kernels("plain", torch.device("cuda")).reason == "asked for"


def test_plain_kernels_add_what_is_left_to_them():
    """As the fused ones do, against which they are compared."""
    plain, bias = PlainVaeKernels(""), torch.randn(4)
    x, h, gamma = torch.randn(1, 4, 2, 3, 5), torch.randn(1, 4, 2, 3, 5), torch.randn(4, 1, 1, 1)
    assert torch.equal(plain.add(h.clone(), bias, x), h + channels(bias) + x)
    found, _ = plain.norm_silu(x, bias, gamma, None, 2)
    assert torch.equal(found, plain.norm_silu(x + channels(bias), None, gamma, None, 2)[0])
    assert torch.equal(plain.double(x, bias, 2), plain.double(x + channels(bias), None, 2))
