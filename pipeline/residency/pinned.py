"""Host memory that a card reads without a copy on the way, one piece at a time or ahead of who needs it.

Knows nothing of weights.
"""

from __future__ import annotations

import contextlib
import mmap
import weakref
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from .host_memory import HOST_RESERVE, available_host_memory

_LARGE_PAGE = 2**21


class PinnedMemory:
    """``size`` bytes of host memory, zero, which the device reads without a copy on the way while this lives.

    Attributes:
        flat: the bytes.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        self.flat = _in_large_pages(size).zero_()  # makes its pages by all cores; pinning would make them one by one
        if device.type == "cuda":
            pin(self, self.flat, device)


class Ahead:
    """Makes pinned memory of the size that was wanted last while that is being filled: a third of loading a block."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._thread: ThreadPoolExecutor | None = None
        self._next: tuple[int, Future[PinnedMemory]] | None = None

    def take(self, size: int) -> PinnedMemory:
        """Memory of exactly this size."""
        made = self._next[1].result() if self._next is not None and self._next[0] == size else None
        taken = PinnedMemory(size, self._device) if made is None else made
        free = available_host_memory()
        self._next = None
        if self._device.type == "cuda" and (free is None or free > 2 * size + HOST_RESERVE):
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "pinned memory")
            self._next = size, self._thread.submit(PinnedMemory, size, self._device)
        return taken

    def free(self) -> None:
        """Give back what was made and not taken."""
        if self._thread is not None:
            self._thread.shutdown()
        self._thread = self._next = None


def _in_large_pages(size: int) -> torch.Tensor:
    """``[size]`` bytes of host memory, unset, in pages of 2 MB where the system has them: quicker to pin."""
    if size >= _LARGE_PAGE:
        with contextlib.suppress(AttributeError, OSError):  # not on every system
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            memory.madvise(mmap.MADV_HUGEPAGE)
            return torch.frombuffer(memory, dtype=torch.uint8)
    return torch.empty(size, dtype=torch.uint8)


def pin(owner: object, host: torch.Tensor, device: torch.device) -> None:
    """Let the card read host memory that has been written, without a copy on the way, as long as ``owner`` lives.

    PyTorch's own pinned memory is rounded up to powers of two and takes six times as long to get. Where the
    system refuses, the memory stays ordinary, from which copies are slower and as right.
    """
    runtime = torch.cuda.cudart()
    with torch.cuda.device(device):
        refused = int(runtime.cudaHostRegister(host.data_ptr(), host.nbytes, 0))
    if refused:
        with contextlib.suppress(RuntimeError):  # the next kernel would be blamed for it
            torch.zeros(1, device=device)
    else:
        weakref.finalize(owner, _unpin, host, device).atexit = False  # the system does it then


def _unpin(host: torch.Tensor, device: torch.device) -> None:
    torch.cuda.synchronize(device)  # copies may be under way
    torch.cuda.cudart().cudaHostUnregister(host.data_ptr())
