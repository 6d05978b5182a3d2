"""How much memory this computer still has for weights."""

from __future__ import annotations

from pathlib import Path

from ..facts.sizes import GIB

# for all else that the run needs: encoders on their way, finished frames, the video's encoder
HOST_RESERVE = 2 * GIB


def available_host_memory(root: Path = Path("/")) -> int | None:
    """Bytes that can be had without swapping, files' cached pages among them; None where the system does not tell.

    Linux tells, and its containers their own limit (cgroup v2).
    """
    try:
        free = _table(root / "proc/meminfo")["MemAvailable:"] * 1024
    except (OSError, ValueError, KeyError):
        return None
    group = root / "sys/fs/cgroup"
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        pages = _table(group / "memory.stat")
        return min(free, limit - used + pages["inactive_file"] + pages["active_file"])
    except (OSError, ValueError, KeyError):  # no container, or no limit
        return free


def _table(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text(encoding="ascii").splitlines())
    return {name: int(value) for name, value, *_ in rows}


def host_memory_notice(wanted: int, made: bool) -> str:
    """What to tell where this computer's memory does not hold what is copied to the card, else nothing.

    Args:
        wanted: bytes of it.
        made: whether it is made while loading, so that it cannot stay in the file.
    """
    free = available_host_memory()
    if free is None or wanted + HOST_RESERVE <= free:
        return ""
    short = (
        f"What is copied to the card takes {wanted / GIB:.1f} GiB of this computer's memory, of which "
        f"{free / GIB:.1f} GiB are free"
    )
    if made:
        return (
            f"{short}. It is changed while loading (by --quant or LoRAs), so the system may swap or stop the run; "
            "infinitetalk convert writes changed weights to a file, from which they can be read at every step."
        )
    return f"{short}; the rest is read from its file at every step, as fast as the disk is. The video stays the same."
