"""How much memory this computer still has for weights."""

from __future__ import annotations

from pathlib import Path

from ..memory import GIB

# for all else that the run needs: encoders on their way, finished frames, the video's encoder
HOST_RESERVE = 2 * GIB


def available_host_memory() -> int | None:
    """Bytes that can be had without swapping, files' cached pages among them; None where the system does not tell.

    Linux only; a container's own limit is not seen.
    """
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None
