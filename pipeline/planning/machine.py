"""Where, in what and by which implementations to compute, as the settings ask for it."""

from __future__ import annotations

from dataclasses import dataclass

import av
import torch

from ..errors import InputError, Unavailable
from ..facts.buckets import target_size
from ..facts.sizes import GIB
from ..models.transformer.attention import choose_attention
from ..models.transformer.block import Operations
from ..models.transformer.few_keys import choose_few_keys
from ..models.transformer.pointwise import choose_pointwise
from ..models.vae.kernels import VaeKernels, choose_vae_kernels
from ..quantisation.matmul import choose_matmuls
from ..quantisation.products import find_gelu_product
from ..settings.definition import Settings
from ..version import __version__
from .memory import VAE_TILES, VaePlan

THREADS = "the number of threads (--threads)"
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Machine:
    """Where, in what and by which implementations models compute. Follows from settings and the device alone.

    Attributes:
        dtype: of transformer and text encoder.
        operations: of the transformer.
        vae_kernels: of the VAE.
    """

    device: torch.device
    dtype: torch.dtype
    operations: Operations
    vae_kernels: VaeKernels


def choose_machine(settings: Settings) -> Machine:
    """What the settings ask for, or the best that works here.

    Raises:
        InputError: a card or an implementation is asked for that is not there.
    """
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    operations = choose_operations(settings, device, dtype)
    return Machine(device, dtype, operations, choose_vae_kernels(settings.kernels, device))


def choose_device(name: str) -> torch.device:
    """The device for "auto" (a CUDA card if there is one), "cpu", "cuda" or "cuda:N".

    Raises:
        InputError: a card is asked for that is not there.
    """
    cards = torch.cuda.device_count()
    if name == "auto":
        return torch.device("cuda" if cards else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= cards:
        found = f"only {cards} CUDA card(s)" if cards else "no CUDA card"
        raise InputError(f"--device: {name} found, but PyTorch sees {found} here; use --device auto or cpu.")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype for "bf16", "fp16", "fp32", or "auto": bf16 on a card that has it, else fp16; fp32 on a CPU."""
    if name != "auto":
        return DTYPES[name]
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if _has_bf16(device) else torch.float16


def _has_bf16(device: torch.device) -> bool:
    """Whether a card multiplies in bf16: RTX 30xx and newer. Older ones imitate it slowly, and not everywhere."""
    return torch.cuda.get_device_properties(device).major >= 8


def choose_operations(settings: Settings, device: torch.device, dtype: torch.dtype) -> Operations:
    """The implementations that the settings ask for, or the best that work here.

    Raises:
        InputError: one is asked for that does not work here.
    """
    few_keys = choose_few_keys(settings.kernels, device, dtype)
    gelu_product = find_gelu_product(settings.kernels, device, dtype)
    return Operations(
        choose_attention(settings.attention, device, dtype),
        choose_pointwise(settings.kernels, device),
        choose_matmuls(settings.quant_matmul, device, dtype),
        None if isinstance(few_keys, Unavailable) else few_keys,
        None if isinstance(gelu_product, Unavailable) else gelu_product,
    )


def choose_vae(settings: Settings, device: torch.device) -> VaePlan:
    """How the VAE works: in the dtype that is asked for, for "auto" in bf16 on a card that has it unless ``--dtype`` is
    fp32, else in fp32; and in the tiles that are asked for, or as few as leave the transformer most of the memory.

    Follows from the settings and the card alone, never from what happens to be free: it decides the last bits.
    """
    dtype = DTYPES.get(settings.vae_dtype)
    if dtype is None:
        rounds = device.type == "cuda" and settings.dtype != "fp32" and _has_bf16(device)
        dtype = torch.bfloat16 if rounds else torch.float32
    if settings.vae_tiles is not None:
        return VaePlan(dtype, settings.vae_tiles)
    if device.type != "cuda":
        return VaePlan(dtype)
    total = torch.cuda.get_device_properties(device).total_memory
    if settings.vram_limit is not None:
        total = min(total, int(settings.vram_limit * GIB))
    height, width = target_size(settings.size, 1, 1)  # a bucket's square
    pixels = height * width
    plans = [VaePlan(dtype, tiles) for tiles in VAE_TILES]
    return next((plan for plan in plans if plan.bytes(pixels) <= plan.room(total)), plans[-1])


def free_memory(device: torch.device, limit: float | None = None) -> int | None:
    """Bytes that this process can still use on a card; None for a CPU.

    Args:
        limit: GiB that the process may use in all.
    """
    if device.type != "cuda":
        return None
    used = torch.cuda.memory_allocated(device)
    free = torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device) - used
    return free if limit is None else max(0, min(free, int(limit * GIB) - used))


def describe_computation(machine: Machine, vae: VaePlan) -> str:
    """Where and with what a run computes, and why, for people."""
    device, attend, pointwise = machine.device, machine.operations.attend, machine.operations.pointwise
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    return (
        f"{name} in {_name(machine.dtype)}, attention by {attend.name} ({attend.reason}), "
        f"kernels: {pointwise.name} ({pointwise.reason}), the VAE in {_name(vae.dtype)}"
        + (f", {vae.tiles} tiles" if vae.tiles > 1 else "")
    )


def computes(machine: Machine, vae: VaePlan, products: str, threads: int | None) -> dict[str, str]:
    """What besides settings and files decides the last bits of a video, by name.

    Args:
        products: how the transformer's matrices are multiplied.
        threads: that compute on the CPU, by whose number sums are cut; None where nothing is computed there.
    """
    return {
        "device": machine.device.type,
        **({} if threads is None else {THREADS: str(threads)}),
        "dtype": _name(machine.dtype),
        "VAE's dtype": _name(vae.dtype),
        "VAE's tiles": str(vae.tiles),
        "attention": machine.operations.attend.name,
        "kernels": machine.operations.pointwise.name,
        "products": products,
        "infinitetalk": __version__,
        "torch": torch.__version__,
        "av": av.__version__,
    }


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
