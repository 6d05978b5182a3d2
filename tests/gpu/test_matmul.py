"""Products of quantised matrices on a card: every way against float64, their memory, and which one is chosen."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from infinitetalk.pipeline.errors import Unavailable
from infinitetalk.pipeline.quantisation import products
from infinitetalk.pipeline.quantisation.activations import Quantised, quantise_rows
from infinitetalk.pipeline.quantisation.gguf import STORAGES
from infinitetalk.pipeline.quantisation.matmul import Activation, EightBit, choose_matmuls, unpack_by_parts
from infinitetalk.pipeline.quantisation.products import find_product
from infinitetalk.pipeline.quantisation.rowwise import FP8_E4M3, FP8_E5M2, INT8, pack_fp8, pack_int8, packed_rows
from infinitetalk.pipeline.quantisation.storage import Packed
from infinitetalk.pipeline.quantisation.triton_probe import triton_kernels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
CARD = torch.device("cuda")
FP8, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
CAPABILITY = torch.cuda.get_device_capability() if torch.cuda.is_available() else (0, 0)
MIB = 2**20
needs_fp8 = pytest.mark.skipif(CAPABILITY < (8, 9), reason="needs a card with fp8 products")


@pytest.fixture(autouse=True)
def exact_float32():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module")
def kernels():
    found = triton_kernels(CARD)
    if isinstance(found, Unavailable):
        pytest.skip(found.reason)
    return found


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator(CARD).manual_seed(seed), device=CARD)


def relative_error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


def pack(matrix, dtype):
    if dtype == E5M2:
        scale = matrix.abs().amax(1) / torch.finfo(E5M2).max
        return packed_rows((matrix / scale[:, None]).to(E5M2), scale)
    return (pack_int8 if dtype == torch.int8 else pack_fp8)(matrix)


def peak_beyond(work):
    """MiB that this takes at its worst, beyond what there was before."""
    work()  # libraries take their workspaces when they are first used
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    work()
    return (torch.cuda.max_memory_allocated() - before) / MIB


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", [torch.int8, pytest.param(FP8, marks=needs_fp8)])
@pytest.mark.parametrize("channels", [96, 768, 5120, 13824])
def test_fused_rows_are_the_plain_ones(kernels, channels, kind, dtype):
    x = (random(300, channels) * torch.logspace(-2, 2, 300, device=CARD)[:, None]).to(dtype)
    x[7] = 0
    found, expected = kernels.quantise_rows(x, kind), quantise_rows(x, kind)
    assert torch.allclose(found.scale, expected.scale, rtol=1e-6, atol=0)
    # A number half-way between two steps may go to either; cards of 8.9 get to fp8 by way of fp16.
    steps = (found.values.view(torch.int8).int() - expected.values.view(torch.int8).int()).abs()
    assert steps.max() <= 1 and steps.float().mean() < 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("kind", [FP8, E5M2, torch.int8])
def test_matrices_are_read_back_to_the_last_bit(kernels, kind, dtype):
    packed = pack(random(130, 5120 + 48), kind)
    assert torch.equal(kernels.unpack(packed.parts, dtype), packed.unpacked().to(dtype))


def ways():
    def name(way):
        return way.func.__name__ if isinstance(way, partial) else way.__name__

    def triton_int8(*arguments):
        return triton_kernels(CARD).int8_product(*arguments)

    def rescaled_by_triton(*arguments):
        return products.scaled_after(*arguments, rescale=triton_kernels(CARD).rescale)

    plain = partial(products.scaled_after, rescale=products._rescale_by_parts)
    for way, weights in (
        (products.integer_sums, torch.int8),
        (triton_int8, torch.int8),
        (products.scaled_rows, FP8),
        (plain, FP8),
        (plain, E5M2),
        (rescaled_by_triton, FP8),
    ):
        marks = () if weights == torch.int8 else needs_fp8
        yield pytest.param(way, weights, id=f"{name(way)}-{weights}", marks=marks)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("count", "inputs", "outputs"), [(1100, 5120, 512), (1057, 784, 1040), (2048, 13824, 256)])
@pytest.mark.parametrize(("way", "weights"), ways())
def test_every_product_is_that_of_the_quantised_numbers(way, weights, count, inputs, outputs, dtype):
    if way is products.scaled_rows and "itself" not in getattr(find_product(FP8, CARD), "reason", ""):
        pytest.skip("this card or PyTorch has no row-wise scales")
    parts = pack(random(outputs, inputs), weights).parts
    quantised = quantise_rows(random(count, inputs, seed=1), torch.int8 if weights == torch.int8 else FP8)
    matrix = parts["weight"].double() * parts["scale"].double()[:, None]
    for bias in (None, random(outputs, seed=2).to(dtype)):
        expected = F.linear(
            quantised.values.double() * quantised.scale, matrix, None if bias is None else bias.double()
        )
        found = way(quantised, parts["weight"], parts["scale"], bias, dtype)
        assert (found.dtype, found.shape) == (dtype, (count, outputs))
        # fp8 sums come in bf16, and from Hopper's tensor cores with about 13 bits.
        exact = weights == torch.int8
        assert relative_error(found, expected) < (max(torch.finfo(dtype).eps, 1e-6) if exact else 1e-2)


def test_integer_sums_do_not_depend_on_tiles(kernels):
    parts = pack_int8(random(1040, 5120)).parts
    quantised = quantise_rows(random(1057, 5120, seed=1), torch.int8)
    arguments = (quantised, parts["weight"], parts["scale"], random(1040, seed=2).bfloat16(), torch.bfloat16)
    expected = kernels.int8_product(*arguments)
    for tile in (
        kernels.Tile(64, 64, 64, 3, 4),
        kernels.Tile(128, 128, 128, 3, 8, 4),
        kernels.Tile(128, 64, 32, 2, 4, 1),
    ):
        assert torch.equal(kernels.int8_product(*arguments, tile), expected)


def test_results_beyond_two_billion_numbers(kernels):
    count, outputs, inputs = 160_000, 13_824, 64
    if torch.cuda.mem_get_info()[0] < 6 * 2**30:
        pytest.skip("needs 6 GiB of free device memory")
    parts = pack_int8(random(outputs, inputs, seed=1)).parts
    quantised = kernels.quantise_rows(random(count, inputs).bfloat16(), torch.int8)
    last = Quantised(quantised.values[-500:], quantised.scale[-500:])
    whole, alone = (kernels.int8_product(part, *parts.values(), None, torch.bfloat16) for part in (quantised, last))
    assert torch.equal(whole[-500:], alone)


def test_what_the_card_can_is_used_and_said():
    chosen = choose_matmuls("auto", CARD, torch.bfloat16)
    fp8, int8 = chosen.of(FP8_E4M3), chosen.of(INT8)
    print(f"\n{torch.cuda.get_device_name()}: fp8 by {fp8.name} ({fp8.reason}), int8 by {int8.name} ({int8.reason})")
    assert isinstance(fp8, EightBit) == isinstance(chosen.of(FP8_E5M2), EightBit) == (CAPABILITY >= (8, 9))
    if not isinstance(fp8, EightBit):
        assert (fp8.name, "8.9" in fp8.reason) == ("weight-only", True)
    if CAPABILITY >= (8, 0):
        assert isinstance(int8, EightBit)
        assert int8.reason == "Triton kernel" or isinstance(triton_kernels(CARD), Unavailable)
    for storage in (FP8_E4M3, FP8_E5M2, INT8):
        assert choose_matmuls("off", CARD, torch.bfloat16).of(storage).name == "weight-only"


@pytest.mark.parametrize("setting", ["auto", "off"])
@pytest.mark.parametrize(("kind", "bounds"), [(FP8, (0.04, 0.03)), (E5M2, (0.07, 0.06)), (torch.int8, (0.015, 0.01))])
def test_layers_are_near_float32(kind, bounds, setting):
    matrix, bias = random(640, 5120) / 5120**0.5, random(640, seed=2).bfloat16()
    packed = pack(matrix, kind)
    layer = choose_matmuls(setting, CARD, torch.bfloat16).of(packed.storage)
    x = random(3, 700, 5120, seed=1).bfloat16()
    expected = F.linear(x.float(), matrix, bias.float())
    eight_bits = isinstance(layer, EightBit)
    for values in (x, Activation(x)):
        found = layer(values, packed.parts, bias)
        assert (found.dtype, found.shape) == (torch.bfloat16, (3, 700, 640))
        assert relative_error(found, expected) < bounds[0 if eight_bits else 1]
    # The keys and values of the context lose nothing by 8-bit products.
    few = layer(x[0], packed.parts, bias)
    assert torch.equal(few, choose_matmuls("off", CARD, torch.bfloat16).of(packed.storage)(x[0], packed.parts, bias))


def q8_0(matrix):
    """ggml's Q8_0: blocks of 32 weights, an fp16 scale and 32 int8 each."""
    blocks = matrix.float().unflatten(1, (-1, 32))
    scale = (blocks.abs().amax(-1, keepdim=True) / 127).half()
    numbers = (blocks / scale.float()).round().to(torch.int8)
    weight = torch.cat([scale.view(torch.uint8), numbers.view(torch.uint8)], dim=-1).flatten(1)
    return Packed(STORAGES["Q8_0"], {"weight": weight}, tuple(matrix.shape))


def test_gguf_layers_are_near_float32():
    matrix, x = random(640, 5120) / 5120**0.5, random(1500, 5120, seed=1).bfloat16()
    packed = q8_0(matrix)
    layer = choose_matmuls("on", CARD, torch.bfloat16).of(packed.storage)
    assert layer.name == "weight-only" and relative_error(layer(x, packed.parts, None), x.float() @ matrix.T) < 0.01


def test_memory_stays_small():
    """At real size: no int32 results of a whole window (1772 MiB), no float32 copy of a whole matrix (270 MiB)."""
    tokens, inputs, outputs = 33_600, 5120, 13_824
    if torch.cuda.mem_get_info()[0] < 4 * 2**30:
        pytest.skip("needs 4 GiB of free device memory")
    out, matrix, eight_bit_rows = tokens * outputs * 2 / MIB, inputs * outputs * 2 / MIB, tokens * inputs / MIB
    x = random(tokens, inputs).bfloat16()
    weights = [pack(random(outputs, inputs, seed=1), kind) for kind in (FP8, torch.int8)]
    for weight in weights:
        for setting in ("off", "auto"):
            layer = choose_matmuls(setting, CARD, torch.bfloat16).of(weight.storage)
            beyond = eight_bit_rows if isinstance(layer, EightBit) else matrix
            assert peak_beyond(partial(layer, x, weight.parts, None)) < out + beyond + 100
    made = quantise_rows(x, torch.int8)
    sums = partial(products.integer_sums, made, *weights[1].parts.values(), None, torch.bfloat16)
    assert peak_beyond(sums) < out + 150
    assert peak_beyond(partial(quantise_rows, x, torch.int8)) < eight_bit_rows + 150
    for weight in (*weights, q8_0(random(outputs, inputs, seed=1))):
        assert peak_beyond(partial(unpack_by_parts, weight.storage, weight.parts, torch.bfloat16)) < matrix + 200
