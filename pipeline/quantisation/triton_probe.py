"""Whether Triton's kernels work on a device: asked here for all of them, those of the networks too.

Knows no kernel but the little one that is tried.
"""

from __future__ import annotations

from functools import cache
from types import ModuleType

import torch

from ..errors import Unavailable, in_short
from ..facts.packages import TRITON


@cache
def triton_kernels(device: torch.device) -> ModuleType | Unavailable:
    """The module ``matmul_triton``, or why no Triton kernel works here.

    Raises:
        torch.OutOfMemoryError: what happens to be free may not decide how a run computes.
    """
    if device.type != "cuda":
        return Unavailable(f"Triton kernels need a CUDA card, this run uses {device.type}")
    if (obstacle := TRITON.obstacle()) is not None:
        return obstacle
    try:  # Triton builds its launcher with a C compiler; whether there is one shows only now
        from . import matmul_triton

        quantised = matmul_triton.quantise_rows(torch.ones(2, 64, device=device), torch.int8)
        return matmul_triton if (quantised.values == 127).all() else Unavailable("Triton computes wrong results here")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return Unavailable(f"Triton does not work here: {in_short(error)}")
