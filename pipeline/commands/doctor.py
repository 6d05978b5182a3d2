"""``infinitetalk doctor``: versions, the card, what is fast here and what is not, and why what is missing matters.

Tries each way of computing for a moment, as a run would; reads no weights and changes nothing.
"""

from __future__ import annotations

import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import av
import psutil
import torch

from ..errors import InputError
from ..models.transformer.attention import choose_attention
from ..models.transformer.few_keys import choose_few_keys
from ..models.transformer.pointwise import choose_pointwise
from ..planning.machine import choose_device, choose_dtype, free_memory
from ..planning.memory import GIB
from ..quantisation.matmul import choose_matmuls
from ..quantisation.products import find_gelu_product
from ..quantisation.rowwise import FP8_E4M3, INT8
from ..version import __version__

FINE, MISSING, BAD = "ok", "--", "!!"
# module, package, what it is for: without it nothing works
NEEDED = (
    ("numpy", "numpy", "arrays of sound"),
    ("safetensors", "safetensors", "reading weights"),
    ("transformers", "transformers", "speech, image and text encoders"),
    ("tokenizers", "tokenizers", "splitting prompts"),
    ("sentencepiece", "sentencepiece", "tokenizers that come as spiece.model"),
    ("PIL", "pillow", "reading pictures"),
    ("soxr", "soxr", "resampling speech"),
    ("pyloudnorm", "pyloudnorm", "the loudness of speech"),
    ("ftfy", "ftfy", "cleaning prompts as the models were trained with"),
)
# the same: without it something is slower or cannot be chosen
OPTIONAL = (
    ("diffusers", "diffusers", "--sample_solver unipc and lcm"),
    ("triton", "triton", "fused kernels (--kernels triton) and fast int8 products; on Windows: triton-windows"),
    ("flash_attn", "flash-attn", "--attention flash; PyTorch's own attention is used without it"),
    ("sageattention", "sageattention", "--attention sage: faster on RTX cards, not exact"),
    ("cudnn", "nvidia-cudnn-frontend", "--attention cudnn_fp8: faster on Hopper and data-centre Blackwell, not exact"),
)
LEAST_HOST_MEMORY = 24 * GIB  # of weights in 8 bits that wait in host memory, and what else a system needs
LEAST_DISK = 2 * GIB  # of an hour of speech and its video, several times


@dataclass(frozen=True)
class Finding:
    """A line: ``mark`` is FINE, MISSING or BAD (a run will fail or crawl)."""

    mark: str
    what: str
    found: str


def examine() -> list[Finding]:
    """Everything, in the order in which it is told."""
    return [*_software(), *_machine(), *_ways()]


def describe(findings: list[Finding]) -> str:
    """The findings as lines of text, with a sentence at the end."""
    width = max(len(finding.what) for finding in findings) + 2
    lines = [f"{finding.mark} {finding.what:<{width}}{finding.found}" for finding in findings]
    bad = [finding.what for finding in findings if finding.mark == BAD]
    end = f"to mend first: {', '.join(bad)}" if bad else "nothing stands in the way"
    return "\n".join([*lines, "", end])


def _software() -> list[Finding]:
    python = f"{platform.python_version()} ({sys.executable})"
    cuda = torch.version.cuda or "without CUDA"
    found = [
        Finding(FINE, "infinitetalk", __version__),
        Finding(FINE, "Python", python),
        Finding(FINE, "torch", f"{torch.__version__} (CUDA {cuda}, cuDNN {torch.backends.cudnn.version()})"),
        _video_library(),
    ]
    for module, package, purpose in NEEDED:
        there = find_spec(module) is not None
        what = _version(package) if there else f"not installed: pip install {package} (for {purpose})"
        found.append(Finding(FINE if there else BAD, package, what))
    for module, package, purpose in OPTIONAL:
        there = find_spec(module) is not None
        found.append(Finding(FINE, package, _version(package)) if there else _absent(package, purpose))
    return found


def _absent(package: str, purpose: str) -> Finding:
    return Finding(MISSING, package, f"not installed, optional; for {purpose}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # it came by another name
        return "installed"


def _video_library() -> Finding:
    if "libx264" not in av.codecs_available:
        return Finding(BAD, "PyAV", f"{av.__version__}, built without libx264: install av from PyPI to write videos")
    return Finding(FINE, "PyAV", f"{av.__version__} with libx264")


def _machine() -> list[Finding]:
    memory = psutil.virtual_memory()
    text = f"{memory.available / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    little = memory.total < LEAST_HOST_MEMORY
    if little:
        text += "; real weights in 8 bits need about 24 GiB where they do not fit on the card"
    disk = shutil.disk_usage(tempfile.gettempdir())
    room = f"{disk.free / GIB:.0f} GiB free in {tempfile.gettempdir()}"
    return [
        Finding(MISSING if little else FINE, "host memory", text),
        Finding(FINE if disk.free > LEAST_DISK else BAD, "disk", room),
        *_card(),
    ]


def _card() -> list[Finding]:
    if not torch.cuda.is_available():
        built = "PyTorch is built without CUDA" if torch.version.cuda is None else "PyTorch sees none (driver?)"
        return [Finding(MISSING, "card", f"no CUDA card: {built}. Real weights take hours a window on a CPU")]
    found = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        free = (free_memory(torch.device("cuda", index)) or 0) / GIB
        text = f"{about.name}, compute capability {about.major}.{about.minor}, {free:.1f} of "
        found.append(Finding(FINE, f"card {index}", f"{text}{about.total_memory / GIB:.1f} GiB free"))
    return found


def _ways() -> list[Finding]:
    """How a run on this machine computes, each with the reason."""
    device = choose_device("auto")
    dtype = choose_dtype("auto", device)
    usual, kernels = choose_attention("auto", device, dtype), choose_pointwise("auto", device)
    found = [
        Finding(FINE, "numbers", f"{str(dtype).removeprefix('torch.')} on {device.type}"),
        Finding(FINE, "attention", f"{usual.name}: {usual.reason}"),
        *(_attention(name, device, dtype) for name in ("cudnn", "cudnn_fp8", "flash", "sage")),
        Finding(FINE if kernels.name == "triton" else MISSING, "kernels", f"{kernels.name}: {kernels.reason}"),
    ]
    few_keys = choose_few_keys("auto", device, dtype)
    if isinstance(few_keys, str):
        found.append(Finding(MISSING, "speech attention", f"with queries, a little slower: {few_keys}"))
    else:
        found.append(Finding(FINE, "speech attention", f"folded, {few_keys.name} kernels: {few_keys.reason}"))
    gelu = find_gelu_product("auto", device, dtype)
    if isinstance(gelu, str):
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
        expected = choose_attention("sdpa", device, dtype)(q, k, v)
        error = ((attend(q, k, v) - expected).float().norm() / expected.float().norm()).item()
    except Exception as error:  # of any kind: it is somebody else's kernel that is tried
        return Finding(MISSING, what, f"does not work here ({(str(error).strip() or repr(error)).splitlines()[0]})")
    return Finding(FINE, what, f"works; differs from PyTorch's own by {error:.4f}")
