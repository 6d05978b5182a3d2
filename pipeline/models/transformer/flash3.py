"""FlashAttention 3 on Hopper cards, in bf16 (exact) and in 8-bit floats, by the packages that have its forward.

``fa3-fwd`` (module ``fa3_fwd_interface``) is the forward alone, a wheel without anything to build; FlashAttention's own
package calls the same function's module ``flash_attn_interface``. Either is used only after it agreed with float32 on
heads like the real model's. Shah et al. 2024, arXiv 2407.08608.

In 8 bits, queries, keys and values are rounded to e4m3 with one scale each, and the probabilities inside the kernel;
what comes out is bf16. Where queries and keys are not of one length (cross-attention, whose keys are few)
attention stays in 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch
import torch.nn.functional as F

from ...errors import InputError, Unavailable, in_short
from ...facts.attention import FLASH3
from ...quantisation.triton_probe import triton_kernels
from .fp8_attention import E4M3, AttentionFunction, ScaledCast, scale_of, scaled_cast

HEADS, HEAD_DIM = 40, 128  # of the real model
MULTIPLE, LARGEST_HEAD = 8, 256  # channels of a head that the kernel takes
# errors against float32 that are let pass, relative to the result (Frobenius); measured: 0.0023 and 0.06
EXACT, ROUNDED = 0.006, 0.12


class Flash3:
    """See ``attention.AttentionFunction``.

    Args:
        dtype: of queries, keys and values.
        otherwise: the attention of heads that the kernel does not take.

    Raises:
        InputError: the package does not work on this card, or not in this dtype; says why.
        torch.OutOfMemoryError: there is no room to try it. What happens to be free must not choose another backend.
    """

    name = "flash3"
    error = EXACT

    def __init__(self, device: torch.device, dtype: torch.dtype, otherwise: AttentionFunction) -> None:
        self._otherwise = otherwise
        try:
            module = import_module(FLASH3.found() or FLASH3.module)
            self._function: Callable[..., torch.Tensor] = module.flash_attn_func
            found = self._measured(device, dtype)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of any kind: it loads libraries of its own, and their errors differ
            raise InputError(
                f"--attention {self.name} does not work here ({in_short(error)}). Use --attention cudnn."
            ) from error
        if not found <= self.error:
            raise InputError(
                f"--attention {self.name} is {found:.3g} off on this card, at most {self.error} expected. "
                "Use --attention cudnn."
            )

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q [B, Lq, H, D], k and v [B, Lk, H, D]; returns [B, Lq, H, D]."""
        if q.shape[-1] % MULTIPLE or q.shape[-1] > LARGEST_HEAD:
            return self._otherwise(q, k, v)
        return self._function(q, k, v)

    def _measured(self, device: torch.device, dtype: torch.dtype) -> float:
        """The error on random numbers, relative to the result of float32."""
        generator = torch.Generator(device).manual_seed(0)
        shape = 3, 1, 1000, HEADS, HEAD_DIM
        q, k, v = torch.randn(shape, generator=generator, device=device).to(dtype)
        right = F.scaled_dot_product_attention(*(x.float().transpose(1, 2) for x in (q, k, v))).transpose(1, 2)
        return ((self(q, k, v).float() - right).norm() / right.norm()).item()


class Flash3Fp8(Flash3):
    """The same in 8 bits.

    Attributes:
        cast: ``scaled_cast``, or Triton's.
    """

    name = "flash3_fp8"
    error = ROUNDED

    def __init__(self, device: torch.device, dtype: torch.dtype, otherwise: AttentionFunction) -> None:
        self.cast: ScaledCast = scaled_cast
        if not isinstance(triton_kernels(device), Unavailable):
            from .pointwise_triton import scaled_cast as fused

            self.cast = fused
        super().__init__(device, dtype, otherwise)

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        if q.shape != k.shape:
            return super().__call__(q, k, v)
        with torch.cuda.device(q.device):
            scales = [scale_of(x) for x in (q, k, v)]
            packed = [self.cast(x.contiguous(), scale, E4M3) for x, scale in zip((q, k, v), scales, strict=True)]
            of_heads = [(1 / scale).expand(q.shape[0], q.shape[2]) for scale in scales]
            return self._function(*packed, q_descale=of_heads[0], k_descale=of_heads[1], v_descale=of_heads[2])
