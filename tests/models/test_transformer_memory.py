"""What a forward holds at its worst moment, counted in tensors of all tokens, and parts that change no result."""

from dataclasses import replace

import pytest
import torch
from infinitetalk.pipeline.models.transformer import block
from infinitetalk.pipeline.models.transformer.attention import choose_attention
from infinitetalk.pipeline.models.transformer.block import Operations, TransformerConfig
from infinitetalk.pipeline.models.transformer.linear import Linear
from infinitetalk.pipeline.models.transformer.model import Context, WanTransformer
from infinitetalk.pipeline.models.transformer.pointwise import PlainPointwise, choose_pointwise
from infinitetalk.pipeline.planning.memory import BLOCK_VECTORS
from infinitetalk.pipeline.quantisation import activations
from infinitetalk.pipeline.quantisation.matmul import EightBit, ReadBack
from infinitetalk.pipeline.quantisation.products import Product
from infinitetalk.pipeline.quantisation.rowwise import pack_int8
from infinitetalk.pipeline.sampling.teacache import COEFFICIENTS_480, TeaCache
from infinitetalk.tests.support.live import Live

CPU = torch.device("cpu")
CONFIG = TransformerConfig(
    **{"dim": 64, "ffn_dim": 176, "num_heads": 2, "num_layers": 2, "in_channels": 6, "out_channels": 2},
    **{"patch_size": (1, 2, 2), "freq_dim": 32, "text_dim": 16, "image_dim": 16, "audio_dim": 16},
    **{"audio_hidden": 16, "audio_tokens": 4, "audio_features": 8},
)
GRID = (4, 16, 16)
TOKENS = 1024
VECTOR = TOKENS * CONFIG.dim * 4  # bytes


def product(quantised, weight, scale, bias, dtype):
    """An 8-bit product as a card computes it, as far as memory goes."""
    out = torch.empty(len(quantised.values), len(weight), dtype=dtype)
    return out.copy_(quantised.values[:1].float() @ weight.float().T * scale + bias)


class OnTheWay(PlainPointwise):
    """Quantises as the fused kernels do, as far as memory between them goes."""

    def norm(self, x, scale, shift, eps, quantised=None):
        return with_8_bits(super().norm(x, scale, shift, eps), quantised)

    def add_norm(self, x, y, gate, scale, shift, eps, quantised=None):
        x.add_(y) if gate is None else self.add(x, y, gate)
        return self.norm(x, scale, shift, eps, quantised)

    def gelu(self, x, quantised=None):
        return with_8_bits(super().gelu(x), quantised)


def with_8_bits(x, dtype):
    values = activations.floats(x)
    if dtype is None:
        return x
    return activations.Activation.of_quantised(activations.quantise_rows(values, dtype), values.dtype)


EIGHT_BIT = EightBit(
    Product("int8", "for the test", torch.int8, activations.quantise_rows, product),
    ReadBack("few rows", lambda parts, dtype: parts["weight"].to(dtype) * parts["scale"][:, None]),
    few_rows=TOKENS // 8,
)


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(activations, "AT_ONCE", TOKENS * CONFIG.dim // 16)
    monkeypatch.setattr(activations, "TOKENS_AT_LEAST", TOKENS // 4)
    monkeypatch.setattr(block, "TEXT_TOKENS", TOKENS // 64)  # of a text with its padding, as in a real window
    torch.manual_seed(0)
    operations = Operations(choose_attention("sdpa", CPU, torch.float32), choose_pointwise("plain", CPU))
    model = WanTransformer(CONFIG, operations).requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def in_eight_bits(model):
    for layer in model.modules():
        if isinstance(layer, Linear):
            layer.store(pack_int8(layer.weight.data), EIGHT_BIT)


def inputs():
    generator = torch.Generator().manual_seed(0)
    shape = (GRID[0], 2 * GRID[1], 2 * GRID[2])
    return torch.randn(2, *shape, generator=generator), torch.randn(4, *shape, generator=generator)


@torch.no_grad()
def contexts(model, passes):
    generator = torch.Generator().manual_seed(1)
    text = model.encode_text(torch.randn(5, 16, generator=generator), model.blocks)
    image = model.encode_image(torch.randn(9, 16, generator=generator), model.blocks)
    speech = model.embed_speech(torch.randn(13, 5, 2, 4, generator=generator))
    return [Context(text, image, speech * (1 - b)) for b in range(passes)]


@pytest.mark.parametrize(
    ("passes", "cached", "eight_bit"),
    [  # every two of them together; all three by make test-long
        pytest.param(passes, cached, eight_bit, marks=[pytest.mark.long] * ((passes + cached + number) % 2))
        for passes in (1, 2, 3)
        for cached in (False, True)
        for number, eight_bit in enumerate((None, "by the layers", "on the way"))
    ],
)
@torch.no_grad()
def test_a_forward_holds_as_many_vectors_as_are_planned_for(model, passes, cached, eight_bit):
    if eight_bit:
        in_eight_bits(model)
    if eight_bit == "on the way":
        model.operations = replace(model.operations, pointwise=OnTheWay(""))
    cache = TeaCache(0.2, COEFFICIENTS_480) if cached else None
    given, latents = contexts(model, passes), inputs()
    model.rope(GRID)
    for _ in range(2):  # what the first leaves for the second counts
        with Live() as live:
            model(*latents, 500.0, given, model.blocks, cache)
        # 8-bit rows are a quarter of float32.
        expected = (5.25 if eight_bit == "by the layers" else 5) + passes - 1 + cached
        assert expected <= live.peak / VECTOR < expected + 0.2
    assert live.peak / VECTOR < BLOCK_VECTORS + passes - 1 + cached


@torch.no_grad()
def test_8_bits_that_are_made_on_the_way_give_what_those_of_the_layers_do(model):
    in_eight_bits(model)
    model.blocks[1].self_attn.q.lora_down = torch.nn.Parameter(torch.randn(3, CONFIG.dim))
    model.blocks[1].self_attn.q.lora_up = torch.nn.Parameter(torch.randn(CONFIG.dim, 3))
    given, latents = contexts(model, 2), inputs()
    apart = model(*latents, 500.0, given, model.blocks)
    made = []

    class Counting(OnTheWay):
        def norm(self, *arguments):
            made.append(arguments[-1])
            return super().norm(*arguments)

        def gelu(self, x, quantised=None):
            made.append(quantised)
            return super().gelu(x, quantised)

    model.operations = replace(model.operations, pointwise=Counting(""))
    for found, expected in zip(model(*latents, 500.0, given, model.blocks), apart, strict=True):
        assert torch.equal(found, expected)
    # Four norms and four parts of the feed-forward in two blocks and passes, but that both passes share the first
    # self-attention with its two norms; one norm is for a layer with a LoRA.
    assert (len(made), made.count(None)) == (30, 2)


@torch.no_grad()
def test_tokens_in_parts_give_what_all_at_once_do(model, monkeypatch):
    given, latents = contexts(model, 2), inputs()
    parts = model(*latents, 500.0, given, model.blocks)
    monkeypatch.setattr(activations, "AT_ONCE", 2**60)
    monkeypatch.setattr(activations, "TOKENS_AT_LEAST", 2**60)
    for found, expected in zip(parts, model(*latents, 500.0, given, model.blocks), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_lora_beside_a_matrix_takes_tokens_in_parts(model):
    layer = model.blocks[0].ffn["0"]
    x = torch.randn(TOKENS, CONFIG.dim)
    alone = layer(x)
    layer.lora_down, layer.lora_up = (torch.nn.Parameter(torch.randn(*shape)) for shape in ((3, 64), (176, 3)))
    expected = alone + (x @ layer.lora_down.T) @ layer.lora_up.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(layer(x[None]), expected[None], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 8_191, 16_383, 16_384, 33_600, 75_600])
def test_parts_are_large_and_cover_all_tokens_once(tokens):
    parts = [range(tokens)[part] for part in activations.token_slices(tokens)]
    assert [index for part in parts for index in part] == list(range(tokens))
    assert len(parts) == 1 or all(8192 <= len(part) < 2 * 8192 for part in parts)
