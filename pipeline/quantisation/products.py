"""Products of 8-bit activations and matrices, and of floats with GELU, and which of them a card can compute.

``torch._scaled_mm``, ``torch._int_mm`` and ``torch._addmm_activation`` are private: each is called in one place here,
and used only after a small product came out right on this device. Knows no storages and no layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from types import ModuleType

import torch
import torch.nn.functional as F

from ..errors import Unavailable, in_short
from .activations import Quantise, Quantised, quantise_rows, row_slices
from .triton_probe import triton_kernels

# Sums that a Hopper card keeps in its tensor cores are a little coarser than those it moves out in between,
# and faster; the rounding to fp8 is coarser by far (benchmarks/quantised.py measures both).
FAST_SUMS = True
GeluProduct = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
MultiplyQuantised = Callable[[Quantised, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.dtype], torch.Tensor]


@dataclass(frozen=True)
class Product:
    """``function(quantised, weight, scale, bias, dtype)``: activations [m, k] times ``weight`` [n, k]: [m, n].

    The result is in ``dtype``; ``scale`` is that of the weight's rows, float32 [n].

    Attributes:
        name: for people, such as "int8".
        reason: why this one, for people.
        activations: the 8 bits in which it takes the activations.
        quantise: makes them so.
    """

    name: str
    reason: str
    activations: torch.dtype
    quantise: Quantise
    function: MultiplyQuantised


@cache
def find_product(weights: torch.dtype, device: torch.device) -> Product | Unavailable:
    """The best product for weights of this dtype that works on a CUDA card, or why there is none.

    Args:
        weights: ``torch.float8_e4m3fn``, ``torch.float8_e5m2`` or ``torch.int8``.
    """
    kernels = triton_kernels(device)
    return _int8_product(device, kernels) if weights == torch.int8 else _fp8_product(weights, device, kernels)


def _fp8_product(
    weights: torch.dtype, device: torch.device, kernels: ModuleType | Unavailable
) -> Product | Unavailable:
    quantise = quantise_rows if isinstance(kernels, Unavailable) else kernels.quantise_rows
    rescale = _rescale_by_parts if isinstance(kernels, Unavailable) else kernels.rescale
    # PyTorch has row-wise scales on Linux, for e4m3, on some cards; single scales wherever there is fp8.
    ways: dict[str, MultiplyQuantised] = {
        "a scale for each row in the product itself": scaled_rows,
        "this card and PyTorch have single scales only: those of the rows come after": partial(
            scaled_after, rescale=rescale
        ),
    }
    for reason, function in ways.items():
        product = Product("fp8", reason, torch.float8_e4m3fn, quantise, function)
        obstacle = _obstacle(product, weights, device)
        if obstacle is None:
            return product
    capability = torch.cuda.get_device_capability(device)
    if capability < (8, 9):
        card = ".".join(map(str, capability))
        needed = "fp8 products need a card of compute capability 8.9 (RTX 40xx, H100) or newer"
        return Unavailable(f"{needed}, this one has {card}")
    return Unavailable(f"fp8 products do not work here: {obstacle}")


def _int8_product(device: torch.device, kernels: ModuleType | Unavailable) -> Product | Unavailable:
    if isinstance(kernels, Unavailable):
        reason, quantise = kernels, quantise_rows
    else:
        quantise = kernels.quantise_rows
        product = Product("int8", "Triton kernel", torch.int8, quantise, kernels.int8_product)
        obstacle = _obstacle(product, torch.int8, device)
        if obstacle is None:
            return product
        reason = obstacle
    product = Product("int8", f"PyTorch's own product, since {reason}", torch.int8, quantise, integer_sums)
    obstacle = _obstacle(product, torch.int8, device)
    return product if obstacle is None else Unavailable(f"int8 products do not work here: {obstacle}")


def scaled_rows(
    quantised: Quantised, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """fp8 with row-wise scales in the product, which PyTorch gives in bf16."""
    bias = None if bias is None else bias.to(torch.bfloat16)
    return _scaled_mm(quantised.values, weight, quantised.scale, scale[None], bias).to(dtype)


def scaled_after(
    quantised: Quantised,
    weight: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
    dtype: torch.dtype,
    rescale: Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor], None],
) -> torch.Tensor:
    """fp8 with the scales applied to the sums, which PyTorch gives in bf16."""
    one = torch.ones((), dtype=torch.float32, device=weight.device)
    total = _scaled_mm(quantised.values, weight, one, one, None)
    out = total if dtype == total.dtype else torch.empty_like(total, dtype=dtype)
    rescale(total, quantised.scale, scale, bias, out)
    return out


def integer_sums(
    quantised: Quantised, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    """int8 with int32 sums, in parts: all sums of a window at once would take 2 GB."""
    out = torch.empty(len(quantised.values), len(weight), dtype=dtype, device=weight.device)
    for part in row_slices(*out.shape):
        _rescale(_int_mm(quantised.values[part], weight), quantised.scale[part], scale, bias, out[part])
    return out


def _scaled_mm(
    values: torch.Tensor,
    weight: torch.Tensor,
    row_scale: torch.Tensor,
    scale: torch.Tensor,
    bias: torch.Tensor | None,
) -> torch.Tensor:
    return torch._scaled_mm(
        values,
        weight.t(),
        scale_a=row_scale,
        scale_b=scale,
        bias=bias,
        out_dtype=torch.bfloat16,
        use_fast_accum=FAST_SUMS,
    )


def _int_mm(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch._int_mm(values, weight.t())


def _rescale(
    total: torch.Tensor, row_scale: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor
) -> None:
    """``out = total * row_scale * scale + bias``; ``out`` may be ``total``."""
    scaled = total * row_scale
    out.copy_(scaled.mul_(scale) if bias is None else torch.addcmul(bias.float(), scaled, scale))


def _rescale_by_parts(
    total: torch.Tensor, row_scale: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None, out: torch.Tensor
) -> None:
    for part in row_slices(*total.shape):
        _rescale(total[part], row_scale[part], scale, bias, out[part])


def gelu_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """On a CUDA card, GELU by its tanh approximation of ``x weight^T + bias``, before the sums are rounded."""
    return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)


@cache
def find_gelu_product(kernels: str, device: torch.device, dtype: torch.dtype) -> GeluProduct | Unavailable:
    """``gelu_product`` where it works, or why it is not used."""
    if kernels == "plain":
        return Unavailable("plain kernels are asked for")
    if device.type != "cuda" or dtype == torch.float32:
        return Unavailable("it needs a CUDA card and 16 bits")
    x = torch.linspace(-4, 4, 64, device=device, dtype=dtype).view(1, -1)
    weight, bias = torch.eye(64, device=device, dtype=dtype), torch.full((64,), 0.5, device=device, dtype=dtype)
    expected = F.gelu(x + bias, approximate="tanh")
    try:
        right = (gelu_product(x, weight, bias) - expected).abs().max() < 8 * torch.finfo(dtype).eps
        return gelu_product if right else Unavailable("it computes wrong results here")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return Unavailable(in_short(error))


def _obstacle(product: Product, weights: torch.dtype, device: torch.device) -> Unavailable | None:
    """Why a product does not work on this device, or None: a small one is tried, with unlike rows and columns."""
    count, channels, outputs = 50, 128, 64
    # Made without random numbers: those of the caller must not move.
    x = torch.arange(count * channels, device=device).remainder(13).sub(6).view(count, channels)
    x = x * 2.0 ** torch.arange(count, device=device).remainder(5)[:, None]
    w = torch.arange(outputs * channels, device=device).remainder(11).sub(5).view(outputs, channels).float()
    scale = 2.0 ** -torch.arange(outputs, device=device).remainder(3)
    bias = torch.arange(outputs, device=device).to(torch.bfloat16)
    expected = (x @ w.T) * scale + bias
    try:
        quantised = product.quantise(x.to(torch.bfloat16), product.activations)
        found = product.function(quantised, w.to(weights), scale, bias, torch.bfloat16)
        right = (found - expected).abs().max() < 0.05 * expected.abs().max()
        return None if right else Unavailable("it computes wrong results")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return Unavailable(in_short(error))
