"""Products of quantised matrices: against float64, against the reading back, and which one is chosen."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from infinitetalk.pipeline.checkpoints.locate import find_transformer_files
from infinitetalk.pipeline.errors import InputError, Unavailable
from infinitetalk.pipeline.facts.storages import StorageFacts
from infinitetalk.pipeline.models.transformer.weights import open_weights
from infinitetalk.pipeline.quantisation import activations, matmul, products
from infinitetalk.pipeline.quantisation.activations import Quantised, quantise_rows
from infinitetalk.pipeline.quantisation.matmul import (
    WEIGHT_ONLY,
    Activation,
    EightBit,
    ReadBack,
    choose_matmuls,
    multiply_plain,
    unpack_by_parts,
)
from infinitetalk.pipeline.quantisation.products import (
    Product,
    find_gelu_product,
    integer_sums,
    scaled_after,
)
from infinitetalk.pipeline.quantisation.rowwise import FP8_E4M3, FP8_E5M2, INT8, pack_fp8, pack_int8, packed_rows
from infinitetalk.pipeline.quantisation.storage import PLAIN, SideBranch, Storage
from infinitetalk.pipeline.quantisation.triton_probe import triton_kernels
from infinitetalk.pipeline.settings.definition import Settings

CPU = torch.device("cpu")
FP8 = torch.float8_e4m3fn
TOKENS, INPUTS, OUTPUTS = 70, 256, 96
INT8_PRODUCT = Product("int8", "", torch.int8, quantise_rows, integer_sums)
FP8_PRODUCT = Product("fp8", "", FP8, quantise_rows, partial(scaled_after, rescale=products._rescale_by_parts))
KINDS = [(INT8_PRODUCT, pack_int8), (FP8_PRODUCT, pack_fp8)]


@pytest.fixture(autouse=True)
def fp8_products_on_a_cpu(monkeypatch):
    """PyTorch 2.6 has none; what is around them is tested all the same."""

    def emulated(rows, weight, row_scale, scale, bias):
        if row_scale.numel() > 1:
            raise NotImplementedError
        sums = F.linear(rows.float(), weight.float()) * row_scale * scale
        return (sums if bias is None else sums + bias).to(torch.bfloat16)

    eight_bits, one = torch.zeros(16, 16).to(FP8), torch.ones(())
    try:
        products._scaled_mm(eight_bits, eight_bits, one, one, None)
    except NotImplementedError:
        monkeypatch.setattr(products, "_scaled_mm", emulated)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(found, expected, dim=None):
    return (found.double() - expected.double()).norm(dim=dim) / expected.double().norm(dim=dim)


def eight_bit(product, storage, few_rows=0):
    return EightBit(product, ReadBack("", partial(unpack_by_parts, storage)), few_rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_rounded_to_nearest(dtype):
    x = (random(TOKENS, INPUTS) * torch.logspace(-3, 3, TOKENS)[:, None]).to(dtype)
    for kind, half_step, smallest in ((torch.int8, 0.5, 0.5), (FP8, 2**-4, 2**-10)):
        values, scale = quantise_rows(x, kind)
        assert (values.dtype, scale.dtype, scale.shape) == (kind, torch.float32, (TOKENS, 1))
        step = half_step if kind == torch.int8 else half_step * x.float().abs() / scale
        error = (values.float() * scale - x.float()).abs() / scale
        assert (error <= torch.as_tensor(step).clamp(min=smallest) * 1.00001).all()
        assert (values.float().abs().amax(1) == activations.LARGEST[kind]).all()


def test_rows_are_made_in_parts_without_a_float32_copy(monkeypatch):
    x = random(TOKENS, INPUTS).bfloat16()
    whole = {kind: quantise_rows(x, kind) for kind in activations.LARGEST}
    monkeypatch.setattr(activations, "AT_ONCE", 9 * INPUTS)
    for kind, (values, scale) in whole.items():
        again = quantise_rows(x, kind)
        assert torch.equal(again.values.view(torch.uint8), values.view(torch.uint8))
        assert torch.equal(again.scale, scale)
    slices = list(activations.row_slices(TOKENS, INPUTS))
    assert torch.equal(torch.cat([torch.arange(TOKENS)[part] for part in slices]), torch.arange(TOKENS))
    assert max(part.stop - part.start for part in slices) <= 9 < TOKENS


@pytest.mark.parametrize("kind", activations.LARGEST)
def test_empty_and_broken_rows(kind):
    x = random(5, INPUTS)
    x[1], x[2, 3], x[3, 4], x[4] = 0, float("nan"), float("inf"), 1e-37
    read_back = (lambda found: found.values.float() * found.scale)(quantise_rows(x, kind))
    assert read_back[0].isfinite().all() and (read_back[1] == 0).all() and (read_back[4] == 0).all()
    # What is broken stays visible, in its own row.
    assert not read_back[2].isfinite().any() and not read_back[3].isfinite().all()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("product", "pack"), KINDS, ids=["int8", "fp8"])
def test_products_are_those_of_the_quantised_numbers(product, pack, dtype, bias, monkeypatch):
    parts = pack(random(OUTPUTS, INPUTS)).parts
    found = quantise_rows(random(TOKENS, INPUTS, seed=1), product.activations)
    bias = random(OUTPUTS, seed=2).to(dtype) if bias else None
    weight = parts["weight"].double() * parts["scale"].double()[:, None]
    expected = F.linear(found.values.double() * found.scale, weight, None if bias is None else bias.double())
    # fp8 sums come in bf16 from PyTorch.
    rounding = torch.finfo(dtype if product.activations == torch.int8 else torch.bfloat16).eps
    for at_once in (2**23, 20 * OUTPUTS):
        monkeypatch.setattr(activations, "AT_ONCE", at_once)
        result = product.function(found, parts["weight"], parts["scale"], bias, dtype)
        assert (result.dtype, result.shape) == (dtype, (TOKENS, OUTPUTS))
        assert relative_error(result, expected) < max(rounding, 1e-6)


def test_e5m2_matrices_can_be_multiplied_too():
    weight = random(OUTPUTS, INPUTS).to(torch.float8_e5m2)
    x = random(TOKENS, INPUTS, seed=1)
    found = quantise_rows(x, FP8)
    result = FP8_PRODUCT.function(found, weight, torch.full((OUTPUTS,), 0.5), None, torch.float32)
    assert relative_error(result, F.linear(found.values.float() * found.scale, 0.5 * weight.float())) < 4e-3


@pytest.mark.parametrize(("product", "pack", "bound"), [(*KINDS[0], 0.012), (*KINDS[1], 0.045)], ids=["int8", "fp8"])
def test_layers_are_near_float32_and_loud_tokens_cost_the_others_nothing(product, pack, bound):
    matrix, bias = random(OUTPUTS, INPUTS) / INPUTS**0.5, torch.zeros(OUTPUTS)
    packed = pack(matrix)
    layer = eight_bit(product, packed.storage)
    x = random(2, TOKENS // 2, INPUTS, seed=1)
    quiet = relative_error(layer(x, packed.parts, bias), F.linear(x, matrix), dim=-1)
    assert quiet.max() < 1.5 * bound and quiet.mean() < bound
    loudness = torch.ones(2, TOKENS // 2, 1)
    loudness[:, ::3], loudness[:, ::7] = 1000, 0.001
    loud = relative_error(layer(x * loudness, packed.parts, bias), F.linear(x * loudness, matrix), dim=-1)
    assert torch.allclose(loud, quiet, atol=0.1 * bound)


@pytest.mark.parametrize(("product", "pack"), KINDS, ids=["int8", "fp8"])
def test_results_are_neither_shrunk_nor_grown(product, pack):
    matrix, x = random(OUTPUTS, INPUTS), random(2000, INPUTS, seed=1)
    packed = pack(matrix)
    expected = F.linear(x, matrix)
    found = eight_bit(product, packed.storage)(x, packed.parts, None)
    slope = (found * expected).sum() / expected.square().sum()
    # Rounding noise alone takes its own variance off: two times 0.026 squared for fp8.
    assert slope == pytest.approx(1, abs=2e-3)


@pytest.mark.parametrize(("product", "pack"), KINDS, ids=["int8", "fp8"])
def test_few_rows_and_odd_shapes_are_multiplied_by_the_matrix_read_back(product, pack):
    x = random(TOKENS, INPUTS)
    packed = pack(random(OUTPUTS, INPUTS, seed=1))
    read_back = F.linear(x, packed.unpacked())
    assert torch.equal(eight_bit(product, packed.storage, TOKENS)(x, packed.parts, None), read_back)
    assert not torch.equal(eight_bit(product, packed.storage, TOKENS - 1)(x, packed.parts, None), read_back)
    for outputs, inputs in ((OUTPUTS - 1, INPUTS), (OUTPUTS, INPUTS - 8)):
        odd = pack(random(outputs, inputs))
        found = eight_bit(product, odd.storage)(x[:, :inputs], odd.parts, None)
        assert torch.equal(found, F.linear(x[:, :inputs], odd.unpacked()))


def test_an_input_of_three_layers_is_quantised_once():
    calls = []

    def quantise(x, dtype):
        calls.append(dtype)
        return quantise_rows(x, dtype)

    x = random(7, 10, INPUTS)
    shared = Activation(x)
    for product, pack in KINDS:
        for seed in range(3):
            packed = pack(random(OUTPUTS, INPUTS, seed=seed))
            layer = eight_bit(replace(product, quantise=quantise), packed.storage)
            result = layer(shared, packed.parts, None)
            assert result.shape == (7, 10, OUTPUTS)
            assert torch.equal(result, layer(x, packed.parts, None))
    # One for the three layers of each kind, and one for each plain tensor.
    assert calls.count(torch.int8) == calls.count(FP8) == 1 + 3


def test_rows_from_a_kernel_are_used_as_they_are():
    packed = pack_int8(torch.eye(64))
    made = Quantised(torch.full((TOKENS, 64), 3, dtype=torch.int8), torch.full((TOKENS, 1), 2.0))
    found = eight_bit(INT8_PRODUCT, INT8)(Activation(random(TOKENS, 64), {torch.int8: made}), packed.parts, None)
    assert torch.allclose(found, torch.full_like(found, 6))


def test_plain_matrices_and_matrices_read_back_take_a_shared_input():
    x, matrix, bias = random(TOKENS, INPUTS), random(OUTPUTS, INPUTS), random(OUTPUTS)
    assert torch.equal(multiply_plain(Activation(x), {"weight": matrix}, bias), F.linear(x, matrix, bias))
    packed = pack_fp8(matrix)
    found = WEIGHT_ONLY.of(packed.storage)(Activation(x), packed.parts, bias)
    assert torch.equal(found, F.linear(x, packed.unpacked(), bias))


def nibbles():
    """A storage as GGUF's are: several numbers in a byte, no scales beside."""

    def unpack(parts):
        taken.append(len(parts["weight"]))
        return torch.stack([parts["weight"] & 15, parts["weight"] >> 4], dim=-1).flatten(1).float()

    taken = []
    return Storage(StorageFacts("nibbles", 4, "uint8"), unpack, SideBranch("a test")), taken


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_matrices_are_read_back_in_parts(dtype, monkeypatch):
    monkeypatch.setattr(activations, "AT_ONCE", 11 * INPUTS)
    for packed in (pack_fp8(random(OUTPUTS, INPUTS)), pack_int8(random(OUTPUTS, INPUTS))):
        found = unpack_by_parts(packed.storage, packed.parts, dtype)
        assert torch.equal(found, packed.unpacked().to(dtype))
    storage, taken = nibbles()
    parts = {"weight": torch.arange(OUTPUTS * INPUTS // 2).to(torch.uint8).view(OUTPUTS, -1)}
    found = unpack_by_parts(storage, parts, dtype)
    assert max(taken) <= (OUTPUTS if dtype == torch.float32 else 11)
    assert torch.equal(found, storage.unpack(parts).to(dtype))


def test_the_choice_on_a_cpu():
    chosen = choose_matmuls("auto", CPU, torch.bfloat16)
    for storage, name in ((FP8_E4M3, "fp8"), (FP8_E5M2, "fp8"), (INT8, "int8")):
        way = chosen.of(storage)
        assert way.name == "weight-only" and "CPU has no fast products of " + name in way.reason
        assert choose_matmuls("off", CPU, torch.bfloat16).of(storage).reason == "asked for"
    assert chosen.of(PLAIN[torch.bfloat16]) is multiply_plain
    assert chosen.of(nibbles()[0]).reason == "nibbles has no products of its own"
    with pytest.raises(InputError, match="--quant_matmul on: 8-bit products need a CUDA card, this run uses cpu"):
        choose_matmuls("on", CPU, torch.bfloat16)


def test_the_choice_on_a_card(monkeypatch):
    """Of a card that has int8 products and no fp8 ones, such as an RTX 30xx."""
    card = torch.device("cuda")
    found = {torch.int8: INT8_PRODUCT, FP8: Unavailable("no fp8 here"), torch.float8_e5m2: Unavailable("no fp8 here")}
    monkeypatch.setattr(matmul, "find_product", lambda weights, device: found[weights])
    monkeypatch.setattr(matmul, "triton_kernels", lambda device: Unavailable("no Triton here"))
    auto, on = (choose_matmuls(setting, card, torch.bfloat16) for setting in ("auto", "on"))
    assert isinstance(auto.of(INT8), EightBit) and isinstance(on.of(INT8), EightBit)
    assert (auto.of(FP8_E4M3).name, auto.of(FP8_E4M3).reason) == ("weight-only", "no fp8 here")
    with pytest.raises(InputError, match="--quant_matmul on: no fp8 here. Use --quant_matmul auto or off."):
        on.of(FP8_E4M3)
    assert on.of(nibbles()[0]).name == "weight-only"
    assert choose_matmuls("off", card, torch.bfloat16).of(INT8).reason == "asked for"
    assert "float32 is asked for" in choose_matmuls("auto", card, torch.float32).of(INT8).reason
    assert isinstance(choose_matmuls("on", card, torch.float32).of(INT8), EightBit)


def test_products_are_tried_before_they_are_used(monkeypatch):
    """A CPU stands for a card here, one that has int8 sums and single fp8 scales, but no row-wise ones.

    By the private functions that find them for a card: the public one gives a CPU none before it tries any.
    """
    before, none = torch.get_rng_state(), Unavailable("no Triton")
    int8 = products._int8_product(CPU, none)
    assert int8.function is integer_sums and int8.reason == "PyTorch's own product, since no Triton"
    monkeypatch.setattr(products, "scaled_rows", lambda *_: torch.ones(2)[:, None] @ torch.ones(2))
    fp8 = products._fp8_product(FP8, CPU, none)
    assert fp8.function.func is scaled_after and "single scales only" in fp8.reason
    assert torch.equal(torch.get_rng_state(), before)
    right = products._int_mm
    monkeypatch.setattr(products, "_int_mm", lambda a, b: right(a, b).roll(1, dims=1))
    assert products._int8_product(CPU, none).reason == "int8 products do not work here: it computes wrong results"
    monkeypatch.delattr(torch, "_int_mm")
    monkeypatch.setattr(products, "_int_mm", right)
    assert "has no attribute" in products._int8_product(CPU, none).reason

    def out_of_memory(a, b):
        raise torch.OutOfMemoryError("CUDA out of memory")

    # What happens to be free may not decide how products are computed.
    monkeypatch.setattr(products, "_int_mm", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        products._int8_product(CPU, none)


def test_triton_kernels_need_a_card():
    assert triton_kernels(CPU).reason == "Triton kernels need a CUDA card, this run uses cpu"


def compare_kernels(device, tiles):
    """The Triton kernels against plain PyTorch: largest differences, relative to the largest value."""
    from infinitetalk.pipeline.quantisation import matmul_triton

    def difference(a, b):
        return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()

    x = (random(TOKENS, INPUTS) * torch.logspace(-3, 3, TOKENS)[:, None]).to(device)
    x[3] = 0
    found, expected = matmul_triton.quantise_rows(x, torch.int8), quantise_rows(x, torch.int8)
    errors = {"scale": difference(found.scale, expected.scale)}
    differing = (found.values.int() - expected.values.int()).abs()
    assert differing.max() <= 1 and differing.float().mean() < 1e-3
    x[2, 5] = float("nan")
    assert matmul_triton.quantise_rows(x, torch.int8).scale.isnan().flatten().tolist() == [
        i == 2 for i in range(TOKENS)
    ]

    every_byte = torch.arange(256, device=device).to(torch.uint8).view(2, 128)
    for dtype in (FP8, torch.float8_e5m2, torch.int8):
        packed = packed_rows(every_byte.view(dtype), torch.tensor([1, 0.3]))
        unpacked = matmul_triton.unpack(packed.parts, torch.float32)
        assert torch.equal(unpacked.nan_to_num(777), packed.unpacked().nan_to_num(777)), dtype
        assert torch.equal(unpacked.isnan(), packed.unpacked().isnan()), dtype

    for channels in (INPUTS, INPUTS - 48):
        parts = pack_int8(random(OUTPUTS, channels).to(device)).parts
        made = quantise_rows(random(TOKENS, channels, seed=1).to(device), torch.int8)
        for bias in (None, random(OUTPUTS, seed=2).to(device)):
            expected = integer_sums(made, parts["weight"], parts["scale"], bias, torch.float32)
            for tile in tiles:
                result = matmul_triton.int8_product(made, parts["weight"], parts["scale"], bias, torch.float32, tile)
                errors[f"int8 {channels} {bias is None} {tile}"] = difference(result, expected)
            total = random(TOKENS, OUTPUTS, seed=3).to(device)
            expected = torch.empty_like(total)
            products._rescale(total, made.scale, parts["scale"], bias, expected)
            matmul_triton.rescale(total, made.scale, parts["scale"], bias, total)
            errors[f"rescale {channels} {bias is None}"] = difference(total, expected)
    return errors


def test_gelu_comes_with_the_product_only_where_it_is_the_same_gelu():
    for dtype in (torch.float32, torch.bfloat16):
        assert "a CUDA card" in find_gelu_product("auto", CPU, dtype).reason  # a CPU's is by the error function


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gelu_in_the_product_rounds_no_worse_on_the_card(dtype):
    found = find_gelu_product("auto", torch.device("cuda"), dtype)
    x, weight, bias = (
        random(*shape, seed=seed).to("cuda", dtype)
        for seed, shape in enumerate([(TOKENS, INPUTS), (OUTPUTS, INPUTS), (OUTPUTS,)])
    )
    expected = F.gelu(F.linear(x.double(), weight.double(), bias.double()), approximate="tanh")
    usual = F.gelu(F.linear(x, weight, bias), approximate="tanh")
    assert relative_error(found(x, weight, bias), expected) <= 1.1 * relative_error(usual, expected)
    assert find_gelu_product("plain", torch.device("cuda"), dtype).reason == "plain kernels are asked for"


INTERPRETED = """
import test_matmul
from infinitetalk.pipeline.quantisation.matmul_triton import Tile
errors = test_matmul.compare_kernels("cpu", [Tile(32, 64, 32, stages=2, warps=4, group=2), Tile(64, 32, 64, 2, 4)])
assert max(errors.values()) < 1e-6, errors
"""


def test_triton_kernels_equal_plain_pytorch_in_the_interpreter(interpreted):
    interpreted(INTERPRETED)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_triton_kernels_equal_plain_pytorch_on_the_card():
    from infinitetalk.pipeline.quantisation.matmul_triton import Tile

    errors = compare_kernels("cuda", [None, Tile(64, 128, 32, stages=3, warps=4, group=2)])
    assert max(errors.values()) < 1e-6, errors


def test_products_in_8_bits_need_matrices_in_8_bits(weights):
    """As on a card, where asking for them is allowed."""
    files = {"ckpt_dir": weights.ckpt_dir, "infinitetalk_dir": weights.infinitetalk, "wav2vec_dir": weights.wav2vec_dir}
    settings = Settings(**files, quant_matmul="on")
    with pytest.raises(InputError, match="--quant_matmul on: no matrix is kept in 8 bits; give --quant fp8 or int8"):
        open_weights(settings, find_transformer_files(settings), WEIGHT_ONLY, torch.bfloat16)
    settings = settings.replace(quant="int8")
    assert open_weights(settings, find_transformer_files(settings), WEIGHT_ONLY, torch.bfloat16).request.quant == "int8"
