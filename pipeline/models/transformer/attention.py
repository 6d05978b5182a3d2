"""One attention function, several backends.

``choose_attention`` looks once at what was asked for, the device and what is installed, and
returns the function with the reason for the choice. Plain PyTorch SDPA is always there and is
what every other backend is tested against.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...errors import InputError
from ...quantisation.rows import Activation, Rows

if TYPE_CHECKING:
    from .fp8_attention import Fp8Attention

# what is imported, and the package that it comes with
MODULES = {
    "flash": ("flash_attn", "flash-attn"),
    "sage": ("sageattention", "sageattention"),
    "cudnn_fp8": ("cudnn", "nvidia-cudnn-frontend"),
}
AttentionFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Attention:
    """A backend. Call with q [B, Lq, H, D], k and v [B, Lk, H, D]; returns [B, Lq, H, D].

    Attributes:
        eight_bit: of equally long q, k and v [1, L, H, D], the same as 8-bit rows [L, H * D], if it has them.
    """

    name: str
    reason: str
    function: AttentionFunction
    eight_bit: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], Rows] | None = None

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return self.function(q, k, v)

    def among(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: torch.dtype | None) -> Activation:
        """Of one sequence's q, k and v [L, H, D]: [L, H * D].

        Args:
            rows: the 8 bits in which it is taken, None for floats.
        """
        if self.eight_bit is not None and rows == torch.float8_e4m3fn:
            return Activation.of_rows(self.eight_bit(q[None], k[None], v[None]), q.dtype)
        return Activation(self.function(q[None], k[None], v[None])[0].flatten(-2))


def choose_attention(name: str, device: torch.device, dtype: torch.dtype) -> Attention:
    """The backend called ``name``, or for "auto" the fastest exact one for this device.

    Args:
        name: "auto", "sdpa", "cudnn", "cudnn_fp8" (package nvidia-cudnn-frontend), "flash" (package flash-attn) or
            "sage" (package sageattention).

    Raises:
        InputError: the backend cannot run here; says why.
    """
    half = dtype in (torch.float16, torch.bfloat16)
    if name == "auto":
        if device.type == "cuda" and half and torch.cuda.get_device_capability(device) == (9, 0):
            return Attention("cudnn", "Hopper card, 16-bit: cuDNN is the fastest exact kernel there", _cudnn)
        return Attention("sdpa", "PyTorch picks its own kernel", _sdpa)
    if name == "sdpa":
        return Attention("sdpa", "asked for", _sdpa)
    needs = f"--attention {name} needs a CUDA card and 16-bit weights"
    if device.type != "cuda" or not half:
        raise InputError(f"{needs}; this run uses {device.type} with {dtype}. Use --attention sdpa.")
    if name == "cudnn":
        return Attention("cudnn", "asked for", _cudnn)
    module, package = MODULES[name]
    if find_spec(module) is None:
        raise InputError(f"--attention {name} needs the Python package {package}, which is not installed here.")
    if name == "cudnn_fp8":
        function = _cudnn_fp8(device)
        return Attention(name, "asked for; self-attention in 8 bits, not exact", function, function.rows)
    return Attention(name, "asked for", {"flash": _flash, "sage": _sage}[name])


def _cudnn_fp8(device: torch.device) -> Fp8Attention:
    major, minor = torch.cuda.get_device_capability(device)
    if (major, minor) != (9, 0) and major != 10:
        raise InputError(
            "--attention cudnn_fp8 needs a Hopper or data-centre Blackwell card (compute capability 9.0 or 10.x); "
            f"this one has {major}.{minor}. Use --attention auto."
        )
    from .fp8_attention import Fp8Attention

    return Fp8Attention(device, otherwise=_cudnn)


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
