"""What the card is, and how a run on this machine computes, each with the reason; for ``doctor``.

Tries each way of computing for a moment, as a run would.
"""

from __future__ import annotations

import torch

from ..errors import InputError, Unavailable, in_short
from ..facts.attention import ATTENTION, PLAIN
from ..facts.sizes import GIB
from ..models.transformer.attention import choose_attention
from ..models.transformer.few_keys import choose_few_keys
from ..models.transformer.pointwise import choose_pointwise
from ..parallel import links
from ..planning.machine import choose_device, choose_dtype, free_memory
from ..quantisation.matmul import choose_matmuls
from ..quantisation.products import find_gelu_product
from ..quantisation.rowwise import FP8_E4M3, INT8
from .doctor import FINE, MISSING, Finding


def cards() -> list[Finding]:
    """PyTorch's CUDA, and each card."""
    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    built = Finding(FINE, "PyTorch", f"{torch.__version__}, {cuda}, cuDNN {torch.backends.cudnn.version()}")
    if not torch.cuda.is_available():
        why = "PyTorch is built without CUDA" if torch.version.cuda is None else "PyTorch sees none (driver?)"
        return [built, Finding(MISSING, "card", f"no CUDA card: {why}. Real weights take hours a window on a CPU")]
    found = [built]
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        free = (free_memory(torch.device("cuda", index)) or 0) / GIB
        text = f"{about.name}, compute capability {about.major}.{about.minor}, {free:.1f} of "
        found.append(Finding(FINE, f"card {index}", f"{text}{about.total_memory / GIB:.1f} GiB free"))
    return [*found, *([between(torch.cuda.device_count())] if torch.cuda.device_count() > 1 else [])]


def between(count: int) -> Finding:
    """What the cards of one machine have for talking."""
    version, way = links.nccl(), links.slowest_way(links.topology())
    if version is None:
        return Finding(MISSING, "several cards", "PyTorch has no NCCL here, so --gpus needs Linux")
    peers = "read each other's memory" if links.reaches(count) else "talk by way of the host's memory"
    text = f"{count} for --gpus, {way or 'the driver does not say how they are joined'}; they {peers}; NCCL {version}"
    return Finding(FINE, "several cards", text)


def ways() -> list[Finding]:
    """How a run on this machine computes, each with the reason."""
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    usual, kernels = choose_attention("auto", device, dtype), choose_pointwise("auto", device)
    found = [
        Finding(FINE, "numbers", f"{str(dtype).removeprefix('torch.')} on {device.type}"),
        Finding(FINE, "attention", f"{usual.name}: {usual.reason}"),
        *(_attention(name, device, dtype) for name in ATTENTION if name != PLAIN.name),
        Finding(FINE if kernels.name == "triton" else MISSING, "kernels", f"{kernels.name}: {kernels.reason}"),
    ]
    few_keys = choose_few_keys("auto", device, dtype)
    if isinstance(few_keys, Unavailable):
        found.append(Finding(MISSING, "speech attention", f"with queries, a little slower: {few_keys}"))
    else:
        found.append(Finding(FINE, "speech attention", f"folded, {few_keys.name} kernels: {few_keys.reason}"))
    gelu = find_gelu_product("auto", device, dtype)
    if isinstance(gelu, Unavailable):
        found.append(Finding(MISSING, "GELU", f"after the product: {gelu}"))
    else:
        found.append(Finding(FINE, "GELU", "within the product"))
    matmuls = choose_matmuls("auto", device, dtype)
    for name, storage in (("fp8 products", FP8_E4M3), ("int8 products", INT8)):
        way = matmuls.of(storage)
        found.append(Finding(MISSING if way.name == "weight-only" else FINE, name, f"{way.name}: {way.reason}"))
    return found


def _attention(name: str, device: torch.device, dtype: torch.dtype) -> Finding:
    """Whether a backend that can be asked for computes what PyTorch's own does."""
    what = f"  {name}"
    try:
        attend = choose_attention(name, device, dtype)
    except InputError as error:
        return Finding(MISSING, what, str(error))
    try:
        q, k, v = (torch.randn(1, 256, 2, 128, device=device, dtype=dtype) for _ in range(3))
        expected = choose_attention(PLAIN.name, device, dtype)(q, k, v)
        difference = ((attend(q, k, v) - expected).float().norm() / expected.float().norm()).item()
    except Exception as error:  # of any kind: it is somebody else's kernel that is tried
        return Finding(MISSING, what, f"does not work here ({in_short(error)})")
    return Finding(FINE, what, f"works; differs from PyTorch's own by {difference:.4f}")
