"""One attention function, several backends.

``choose_attention`` looks once at what was asked for, the device and what is installed, and
returns the function with the reason for the choice. Plain PyTorch SDPA is always there and is
what every other backend is tested against. What is known of each without trying it is in
``facts/attention.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...errors import InputError
from ...facts.attention import ATTENTION, Capability, automatic_attention
from ...quantisation.activations import Activation, Quantised

AttentionFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
EightBitFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Quantised]
Made = tuple[AttentionFunction, EightBitFunction | None]  # as in ``Attention``


@dataclass(frozen=True)
class Attention:
    """A backend. Call with q [B, Lq, H, D], k and v [B, Lk, H, D]; returns [B, Lq, H, D].

    Attributes:
        eight_bit: of equally long q, k and v [1, L, H, D], the same in 8 bits [L, H * D], if it has them.
    """

    name: str
    reason: str
    function: AttentionFunction
    eight_bit: EightBitFunction | None = None

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return self.function(q, k, v)

    def among(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, quantised: torch.dtype | None) -> Activation:
        """Of one sequence's q, k and v [L, H, D]: [L, H * D].

        Args:
            quantised: the 8 bits in which it is taken, None for floats.
        """
        if self.eight_bit is not None and quantised == torch.float8_e4m3fn:
            return Activation.of_quantised(self.eight_bit(q[None], k[None], v[None]), q.dtype)
        return Activation(self.function(q[None], k[None], v[None])[0].flatten(-2))


def choose_attention(name: str, device: torch.device, dtype: torch.dtype) -> Attention:
    """The backend called ``name``, or for "auto" the fastest exact one for this device.

    Args:
        name: "auto", or one of ``facts.attention.ATTENTION``.

    Raises:
        InputError: the backend cannot run here; says why.
    """
    fits = device.type == "cuda" and dtype in (torch.float16, torch.bfloat16)
    if name == "auto":
        return _automatic(torch.cuda.get_device_capability(device) if fits else None, device, dtype)
    facts = ATTENTION[name]
    if facts.needs_card and not fits:
        raise InputError(
            f"--attention {name} needs a CUDA card and 16-bit weights; this run uses {device.type} with {dtype}. "
            "Use --attention sdpa."
        )
    facts.check_package()
    if facts.capabilities:
        facts.check_card(torch.cuda.get_device_capability(device))
    reason = "asked for" if facts.exact else f"asked for; in {facts.bits} bits, not exact"
    return Attention(name, reason, *BACKENDS[name](device, dtype))


def _automatic(capability: Capability | None, device: torch.device, dtype: torch.dtype) -> Attention:
    """The first that works. (The last one, PyTorch's own, always does.)"""
    reasons = []
    for facts in automatic_attention(capability):
        try:
            made = BACKENDS[facts.name](device, dtype)
        except InputError as error:
            reasons.append(str(error))
            continue
        return Attention(facts.name, "; ".join([facts.automatic, *reasons]), *made)
    raise AssertionError("PyTorch's own attention is the last of all")


def _sdpa(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2)


def _cudnn(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    # cuDNN first; the others take what it refuses (odd head sizes).
    order = [SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(order, set_priority=True):
        return _sdpa(q, k, v)


def _flash(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    from flash_attn import flash_attn_func

    return flash_attn_func(q, k, v)


def _sage(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    from sageattention import sageattn

    return sageattn(q, k, v, tensor_layout="NHD")


def _flash3(device: torch.device, dtype: torch.dtype) -> Made:
    from .flash3 import Flash3

    return Flash3(device, dtype, otherwise=_cudnn), None


def _flash3_fp8(device: torch.device, dtype: torch.dtype) -> Made:
    from .flash3 import Flash3Fp8

    return Flash3Fp8(device, dtype, otherwise=_cudnn), None


def _cudnn_fp8(device: torch.device, dtype: torch.dtype) -> Made:
    from .fp8_attention import Fp8Attention

    function = Fp8Attention(device, otherwise=_cudnn)
    return function, function.quantised


# how each backend is made for a device
BACKENDS: Mapping[str, Callable[[torch.device, torch.dtype], Made]] = {
    "sdpa": lambda device, dtype: (_sdpa, None),
    "flash3": _flash3,
    "flash3_fp8": _flash3_fp8,
    "cudnn": lambda device, dtype: (_cudnn, None),
    "cudnn_fp8": _cudnn_fp8,
    "flash": lambda device, dtype: (_flash, None),
    "sage": lambda device, dtype: (_sage, None),
}
