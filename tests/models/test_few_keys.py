"""Attention to few keys, against the formula."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from infinitetalk.pipeline.errors import Unavailable
from infinitetalk.pipeline.models.transformer import few_keys
from infinitetalk.pipeline.models.transformer.attention import choose_attention
from infinitetalk.pipeline.models.transformer.block import AudioCrossAttention, Operations, TransformerConfig
from infinitetalk.pipeline.models.transformer.few_keys import choose_few_keys, folding_pays
from infinitetalk.pipeline.models.transformer.pointwise import choose_pointwise
from infinitetalk.pipeline.quantisation.activations import Activation
from infinitetalk.pipeline.quantisation.matmul import choose_matmuls
from infinitetalk.pipeline.quantisation.rowwise import pack_fp8, pack_int8

CPU, CARD = torch.device("cpu"), torch.device("cuda")
ON_A_CARD = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
FRAMES, PIXELS, TOKENS, HEADS, WIDTH = 3, 70, 16, 3, 32
CONFIG = TransformerConfig(
    **{"dim": HEADS * WIDTH, "ffn_dim": 176, "num_heads": HEADS, "num_layers": 1, "in_channels": 6, "out_channels": 2},
    **{"patch_size": (1, 2, 2), "freq_dim": 32, "text_dim": 16, "image_dim": 16, "audio_dim": 24},
    **{"audio_hidden": 16, "audio_tokens": TOKENS, "audio_features": 8},
)


def operations(device=CPU, dtype=torch.float32, kernels="plain"):
    return Operations(
        choose_attention("sdpa", device, dtype),
        choose_pointwise("plain", device),
        choose_matmuls("auto", device, dtype),
        choose_few_keys(kernels, device, dtype),
    )


@torch.no_grad()
def case(device=CPU, dtype=torch.float32, tokens=TOKENS, seed=0):
    """A layer, its input, and speech, all as in a trained model: scores of several units."""
    torch.manual_seed(seed)
    layer = AudioCrossAttention(CONFIG)
    for name, parameter in layer.named_parameters():
        torch.nn.init.normal_(parameter, std=0.3 if name.endswith("weight") else 1)
    x, audio = torch.randn(FRAMES * PIXELS, CONFIG.dim), torch.randn(FRAMES, tokens, CONFIG.audio_dim)
    return layer.to(device, dtype), x.to(device, dtype), audio.to(device, dtype)


@pytest.fixture
def folds_always(monkeypatch):
    """These sizes are too small for it to pay."""
    monkeypatch.setattr("infinitetalk.pipeline.models.transformer.block.folding_pays", lambda *_: True)


@torch.no_grad()
def both(layer, x, audio, ops):
    folded = layer(Activation(x), audio, ops)
    return folded, layer(Activation(x), audio, replace(ops, few_keys=None))


def relative_error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("tokens", [1, 7, TOKENS])
@pytest.mark.usefixtures("folds_always")
def test_folded_is_the_formula(tokens):
    folded, formula = both(*case(tokens=tokens), operations())
    assert not torch.equal(folded, formula)  # it was another way
    assert relative_error(folded, formula) < 2e-6


@pytest.mark.parametrize("pack", [pack_fp8, pack_int8])
@pytest.mark.usefixtures("folds_always")
def test_quantised_matrices_are_folded_as_they_are_read(pack):
    layer, x, audio = case()
    ops = operations()
    for linear in (layer.q_linear, layer.proj):
        packed = pack(linear.weight.data)
        linear.store(packed, ops.matmuls.of(packed.storage))
    folded, formula = both(layer, x, audio, ops)
    assert not torch.equal(folded, formula)
    assert relative_error(folded, formula) < 2e-6


@pytest.mark.usefixtures("folds_always")
def test_a_lora_beside_a_layer_is_not_lost():
    layer, x, audio = case()
    plain, _ = both(layer, x, audio, operations())
    linear = layer.proj
    up, down = torch.randn(CONFIG.dim, 2), torch.randn(2, CONFIG.dim)
    packed = pack_fp8(linear.weight.data)
    linear.store(packed, operations().matmuls.of(packed.storage), (down, up))
    found, formula = both(layer, x, audio, operations())
    assert torch.equal(found, formula) and relative_error(found, plain) > 0.5


def test_it_is_used_where_it_saves_arithmetic_and_no_memory():
    assert folding_pays(dim=5120, columns=40 * 32, pixels=40 * 40)
    assert not folding_pays(dim=5120, columns=40 * 32, pixels=20 * 20)  # folded keys would be larger than queries
    assert not folding_pays(dim=5120, columns=40 * 96, pixels=40 * 40)
    layer, _, audio = case()
    assert not layer.folds(FRAMES * PIXELS, audio, replace(operations(), few_keys=None))
    assert layer.folds(FRAMES * PIXELS, audio[:, :TOKENS], operations())


def test_what_cannot_give_scores_in_float32_does_without():
    chosen = choose_few_keys("auto", CPU, torch.float32)
    assert (chosen.name, chosen.reason) == ("plain", "fused ones are for 16 bits")
    assert choose_few_keys("plain", CPU, torch.float32).reason == "asked for"
    assert "no products of 16 bits" in choose_few_keys("auto", CPU, torch.bfloat16).reason


def compare_kernels(device, dtype):
    """Largest differences of the fused kernels from plain PyTorch, relative to the largest value."""
    from infinitetalk.pipeline.models.transformer import few_keys_triton

    errors = {}
    frames = 9 if device != "cpu" else 2
    for tokens, width, channels, pixels in ((16, 32, 96, 70), (32, 128, 600, 64), (128, 16, 256, 1), (7, 24, 96, 5)):
        torch.manual_seed(0)
        layer = torch.randn(HEADS * width, channels, device=device).to(dtype)
        # as one layer makes keys and values
        kv = torch.randn(frames, tokens, 2 * HEADS * width, device=device).to(dtype)
        kv = kv.unflatten(-1, (2, HEADS, width))[:, :, 1]
        scores = 5 * torch.randn(frames, pixels, HEADS * tokens, device=device)
        offset = torch.randn(frames, HEADS * tokens, device=device)
        before, after = layer.unflatten(0, (HEADS, width)), layer.t().contiguous().t().unflatten(0, (HEADS, width))
        calls = {
            "fold": lambda way, kv=kv, matrix=before: way.fold(kv, matrix),
            "fold across": lambda way, kv=kv, matrix=after: way.fold(kv, matrix),
            "weigh": lambda way, s=scores, offset=offset: way.weigh(s.clone(), offset, 0.3, HEADS, dtype),
        }
        for name, call in calls.items():
            found, expected = call(few_keys_triton), call(few_keys)
            assert found.dtype == expected.dtype == dtype and found.shape == expected.shape, name
            errors[name, tokens] = ((found - expected).abs().max() / expected.abs().max()).item()
    for keys, image, width in ((1, 5, 16), (17, 257, 64), (64, 64, 128), (80, 33, 128)):
        torch.manual_seed(0)
        q = torch.randn(70, HEADS, width, device=device).to(dtype)
        first, second = (2 * torch.randn(2, n, HEADS, width, device=device).to(dtype) for n in (keys, image))
        padded = torch.cat([first, first[:, -1:].expand(-1, 99, -1, -1)], 1)
        found = few_keys_triton.sum_of_two(q, first, 100, second)
        expected = sum(exact_attention(q, *kv) for kv in (padded, second))
        assert found.dtype == dtype and found.shape == q.shape
        errors["sum of two", keys] = ((found - expected).abs().max() / expected.abs().max()).item()
    return errors


def exact_attention(q, k, v):
    q, k, v = (x.double().transpose(0, 1) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(0, 1)


def test_fused_kernels_equal_plain_pytorch_in_the_interpreter(interpreted):
    interpreted("""
import torch, test_few_keys
for dtype, bound in ((torch.float32, 2e-6), (torch.float16, 2e-3)):  # it cannot multiply bf16
    errors = test_few_keys.compare_kernels("cpu", dtype)
    assert max(errors.values()) < bound, (dtype, errors)
test_few_keys.try_out(torch.float16)
""")


def try_out(dtype):
    """What a card is asked before its kernels are used, as far as it can be asked here."""
    from infinitetalk.pipeline.models.transformer import few_keys_triton as fused

    def scores(x, keys):
        return torch.bmm(x.float(), keys.mT.float())

    def spoilt(*given):
        return 1.5 * fused.sum_of_two(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(few_keys, "float_scores", scores)
        for both, expected in (
            (fused.sum_of_two, None),
            (None, None),
            (spoilt, Unavailable("it computes wrong results here")),
        ):
            ways = few_keys.FewKeys("", "", fused.fold, fused.weigh, both)
            assert few_keys._obstacle(ways, CPU, dtype) == expected


@ON_A_CARD
def test_fused_kernels_equal_plain_pytorch_on_the_card():
    errors = compare_kernels("cuda", torch.bfloat16)
    assert max(errors.values()) < 1e-2, errors


@ON_A_CARD
@pytest.mark.usefixtures("folds_always")
@pytest.mark.parametrize("kernels", ["plain", "auto"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_few_keys_rounds_no_worse_than_the_formula_on_the_card(dtype, kernels):
    found = choose_few_keys(kernels, CARD, dtype)
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)
    layer, x, audio = case(CARD, dtype)
    found = both(layer, x, audio, operations(CARD, dtype, kernels))
    layer, x, audio = (value.double().cpu() for value in (layer, x, audio))
    k, v = layer.kv_linear(audio).unflatten(-1, (2, HEADS, WIDTH)).permute(2, 0, 3, 1, 4)
    q = layer.q_linear(x).view(FRAMES, PIXELS, HEADS, WIDTH).transpose(1, 2)
    exact = layer.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(len(x), -1)).detach()
    folded, formula = (relative_error(way.cpu(), exact) for way in found)
    assert folded < 1.5 * formula, (folded, formula)
