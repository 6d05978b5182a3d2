"""Which attention is chosen, what is refused, and 8-bit attention against 16 bits on a card."""

import contextlib
import sys
from types import SimpleNamespace

import pytest
import torch
from infinitetalk.pipeline.errors import InputError, Unavailable
from infinitetalk.pipeline.facts import packages
from infinitetalk.pipeline.models.transformer.attention import BACKENDS, choose_attention
from infinitetalk.pipeline.models.transformer.flash3 import Flash3, Flash3Fp8
from infinitetalk.pipeline.models.transformer.fp8_attention import E4M3, LARGEST, scale_of, scaled_cast

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)
ON_A_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")


def card(monkeypatch, capability, installed=()):
    """As if there were a card of this compute capability, with these packages installed."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(packages, "find_spec", lambda name: name if name in installed else None)


@pytest.mark.parametrize("name", ["flash3", "flash3_fp8", "cudnn", "cudnn_fp8", "flash", "sage"])
def test_a_card_and_sixteen_bits_are_needed(name):
    with pytest.raises(InputError, match=f"--attention {name} needs a CUDA card and 16-bit weights; this run uses cpu"):
        choose_attention(name, CPU, torch.bfloat16)
    with pytest.raises(InputError, match="this run uses cuda with torch.float32. Use --attention sdpa"):
        choose_attention(name, CARD, torch.float32)


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("flash3", "fa3-fwd"),
        ("flash3_fp8", "fa3-fwd"),
        ("cudnn_fp8", "nvidia-cudnn-frontend"),
        ("flash", "flash-attn"),
        ("sage", "sageattention"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, name, package):
    card(monkeypatch, (9, 0))
    with pytest.raises(InputError, match=f"--attention {name}: the Python package {package} is not installed"):
        choose_attention(name, CARD, torch.bfloat16)


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (12, 0)])
def test_cards_without_the_fp8_kernel_are_refused(monkeypatch, capability):
    card(monkeypatch, capability, ["cudnn"])
    with pytest.raises(InputError, match=rf"compute capability 9\.0 or 10\.x\); this one has {capability[0]}\."):
        choose_attention("cudnn_fp8", CARD, torch.bfloat16)


def test_the_automatic_choice_is_exact(monkeypatch):
    card(monkeypatch, (9, 0), ["cudnn", "flash_attn", "sageattention"])
    assert choose_attention("auto", CARD, torch.bfloat16).name == "cudnn"
    assert choose_attention("auto", CARD, torch.float32).name == "sdpa"
    card(monkeypatch, (12, 0), ["cudnn", "flash_attn", "sageattention"])
    assert choose_attention("auto", CARD, torch.bfloat16).name == "sdpa"


def attention_in_floats(q, k, v, q_descale=None, k_descale=None, v_descale=None):
    """What FlashAttention 3 computes, heads' scales included."""
    scales = [1 if scale is None else scale[:, None, :, None] for scale in (q_descale, k_descale, v_descale)]
    q, k, v = ((x.float() * scale).transpose(1, 2) for x, scale in zip((q, k, v), scales, strict=True))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).to(torch.bfloat16)


@pytest.fixture
def flash3(monkeypatch):
    """FlashAttention's package as far as it is used, as if on a Hopper card."""

    def install(function, name="fa3_fwd_interface"):
        card(monkeypatch, (9, 0), [name])
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(flash_attn_func=function))
        monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
        monkeypatch.setattr("infinitetalk.pipeline.models.transformer.flash3.triton_kernels", Unavailable)
        for kind, made in {"flash3": Flash3, "flash3_fp8": Flash3Fp8}.items():
            monkeypatch.setitem(BACKENDS, kind, lambda _, dtype, made=made: (made(CPU, dtype, None), None))

    return install


@pytest.mark.parametrize("name", ["fa3_fwd_interface", "flash_attn_interface"])
def test_flash_attention_3_is_taken_where_it_agrees(flash3, name):
    flash3(attention_in_floats, name)
    chosen = choose_attention("auto", CARD, torch.bfloat16)
    assert chosen.name == "flash3" and "fastest exact kernel" in chosen.reason
    q, k, v = torch.randn(3, 1, 50, 2, 16).bfloat16()
    assert torch.equal(chosen(q, k, v), attention_in_floats(q, k, v))


def test_flash_attention_3_that_is_wrong_gives_way_and_says_why(flash3):
    flash3(lambda q, k, v, **scales: 1.02 * attention_in_floats(q, k, v))
    chosen = choose_attention("auto", CARD, torch.bfloat16)
    assert chosen.name == "cudnn" and "flash3 is 0.02" in chosen.reason
    with pytest.raises(InputError, match=r"--attention flash3 is 0.02\d* off on this card, at most 0.006 expected"):
        choose_attention("flash3", CARD, torch.bfloat16)

    def refuses(q, k, v, **scales):
        raise RuntimeError("this build does not support fp16")

    flash3(refuses)
    chosen = choose_attention("auto", CARD, torch.float16)
    assert chosen.name == "cudnn" and "does not work here (this build does not support fp16" in chosen.reason


def test_a_full_card_does_not_choose_another_attention(flash3):
    def full(q, k, v, **scales):
        raise torch.OutOfMemoryError("CUDA out of memory")

    flash3(full)
    with pytest.raises(torch.OutOfMemoryError):
        choose_attention("auto", CARD, torch.bfloat16)


def test_flash_attention_3_in_8_bits_rounds_and_leaves_few_keys_alone(flash3):
    flash3(attention_in_floats)
    chosen = choose_attention("flash3_fp8", CARD, torch.bfloat16)
    assert "in 8 bits, not exact" in chosen.reason
    q, k, v = torch.randn(3, 1, 200, 2, 16).bfloat16()
    v = v * torch.tensor([1, 30])[:, None]
    right = attention_in_floats(q, k, v).float()
    off = (chosen(q, k, v).float() - right).norm() / right.norm()
    assert 0.005 < off < 0.1
    assert torch.equal(chosen(q, k[:, :9], v[:, :9]), attention_in_floats(q, k[:, :9], v[:, :9]))


def test_a_package_that_breaks_when_imported_is_told(monkeypatch):
    card(monkeypatch, (9, 0), ["cudnn"])
    monkeypatch.setitem(sys.modules, "cudnn", None)  # an import of it fails
    with pytest.raises(InputError, match=r"--attention cudnn_fp8 does not work here \(.*cudnn.*\). Use --attention"):
        choose_attention("cudnn_fp8", CARD, torch.bfloat16)


@pytest.mark.parametrize("largest", [1e-6, 0.3, 1.0, 3.5, 448.0, 449.0, 7000.0])
def test_scales_are_powers_of_two_that_just_fit(largest):
    x = torch.tensor([0.0, -largest, largest / 3])
    scale = scale_of(x)
    assert torch.frexp(scale).mantissa == 0.5
    assert LARGEST / 2 < largest * scale <= LARGEST


def test_zeros_have_a_scale_and_what_is_not_finite_stays_so():
    zeros = torch.zeros(3, dtype=torch.bfloat16)
    assert torch.equal(scaled_cast(zeros, scale_of(zeros), E4M3).float(), torch.zeros(3))
    broken = torch.tensor([1.0, torch.inf])
    assert not scaled_cast(broken, scale_of(broken), E4M3).float().isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_casts_round_once(dtype):
    x = torch.randn(2, 30, 3, 16).to(dtype)
    scale = scale_of(x)
    packed = scaled_cast(x, scale, E4M3)
    assert torch.equal(packed.float(), (x.double() * scale.double()).to(E4M3).float())
    back = scaled_cast(packed, 1 / scale, dtype)
    assert back.dtype == dtype and torch.equal(back.double(), packed.double() / scale.double())
    assert ((back - x).float().norm() / x.float().norm()) < 0.03


INTERPRETED = """
import torch
from infinitetalk.pipeline.models.transformer.fp8_attention import E4M3, scale_of, scaled_cast
from infinitetalk.pipeline.models.transformer.pointwise_triton import scaled_cast as fused
# Triton's interpreter rounds to e4m3 wrongly: numbers that need no rounding
packed = (100 * torch.randn(3, 333, 7)).to(E4M3)
for dtype in (torch.bfloat16, torch.float16):
    x = fused(packed, torch.tensor(0.25), dtype)
    assert torch.equal(x, scaled_cast(packed, torch.tensor(0.25), dtype)), dtype
    assert torch.equal(fused(x, torch.tensor(4.0), E4M3).float(), packed.float()), dtype
"""


def test_fused_casts_equal_plain_pytorch_in_the_interpreter(interpreted):
    interpreted(INTERPRETED)


@ON_A_CARD
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fused_casts_equal_plain_pytorch_on_the_card(dtype):
    from infinitetalk.pipeline.models.transformer.pointwise_triton import scaled_cast as fused

    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("Triton converts to e4m3 from compute capability 8.9 on")
    x = (3 * torch.randn(3, 3333, 7, device=CARD)).to(dtype)
    scale = scale_of(x)
    packed = fused(x, scale, E4M3)
    assert torch.equal(packed.float(), scaled_cast(x, scale, E4M3).float())
    assert torch.equal(fused(packed, 1 / scale, dtype), scaled_cast(packed, 1 / scale, dtype))


@pytest.fixture(scope="module")
def fp8():
    try:
        return choose_attention("cudnn_fp8", CARD, torch.bfloat16)
    except InputError as error:
        pytest.skip(str(error))


def relative(found, expected):
    return ((found - expected).float().norm() / expected.float().norm()).item()


def exact(q, k, v):
    return choose_attention("sdpa", CARD, torch.float32)(q.float(), k.float(), v.float())


@ON_A_CARD
@pytest.mark.parametrize("width", [64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_fp8_attention_of_noise(fp8, width, dtype):
    """The worst case: nothing stands out, so results are small differences of large sums."""
    q, k, v = torch.randn(3, 1, 3000, 5, width, device=CARD, dtype=dtype)
    found = fp8(q, k, v)
    assert found.shape == q.shape and found.dtype == dtype
    assert relative(found, exact(q, k, v)) < 0.09


@ON_A_CARD
def test_fp8_attention_that_finds_something(fp8):
    """Each query looks at few keys, and magnitudes are anything."""
    k, v = torch.randn(2, 2, 2048, 4, 128, device=CARD, dtype=torch.bfloat16)
    q, v = 3 * k.roll(5, 1), 200 * v + 50
    assert relative(fp8(q, k, v), exact(q, k, v)) < 0.05
    assert relative(fp8(q, k, 1e-6 * v), exact(q, k, 1e-6 * v)) < 0.05


@ON_A_CARD
def test_fp8_attention_leaves_short_keys_in_sixteen_bits(fp8):
    q = torch.randn(1, 2048, 4, 128, device=CARD, dtype=torch.bfloat16)
    k, v = torch.randn(2, 1, 32, 4, 128, device=CARD, dtype=torch.bfloat16)
    assert torch.equal(fp8(q, k, v), choose_attention("cudnn", CARD, torch.bfloat16)(q, k, v))


@ON_A_CARD
def test_fp8_attention_takes_what_is_not_contiguous_and_other_streams(fp8):
    q, k, v = torch.randn(1, 512, 4, 3, 64, device=CARD, dtype=torch.bfloat16).unbind(3)
    expected = fp8(q.contiguous(), k.contiguous(), v.contiguous())
    assert torch.equal(fp8(q, k, v), expected)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        found = fp8(q, k, v)
    stream.synchronize()
    assert torch.equal(found, expected)


@ON_A_CARD
def test_rows_for_an_8_bit_product_are_the_same_numbers(fp8):
    q, k, v = torch.randn(3, 2048, 4, 128, device=CARD, dtype=torch.bfloat16)
    found, floats = fp8.among(q, k, v, E4M3), fp8.among(q, k, v, None).values
    values, scale = found.quantised(E4M3, None)
    assert found.values.is_meta and (scale.shape, scale.stride()) == ((2048, 1), (1, 1))
    assert torch.equal((values.float() * scale).to(q.dtype), floats)
    assert torch.equal(fp8.among(q, k, v, torch.int8).values, floats)


@ON_A_CARD
def test_fp8_attention_refuses_odd_heads(fp8):
    q = torch.randn(1, 256, 4, 24, device=CARD, dtype=torch.bfloat16)
    with pytest.raises(InputError, match="needs heads of 16, 32, ... or 128 channels; this model's have 24"):
        fp8(q, q, q)
