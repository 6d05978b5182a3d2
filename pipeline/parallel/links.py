"""What is between the cards of this machine: NVLink or PCIe, whether one reads another's memory, and NCCL.

Asks the driver (``nvidia-smi topo``) and PyTorch; moves nothing. How fast it is, ``measuring`` finds out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from itertools import combinations

import torch
import torch.distributed as dist

SECONDS = 20  # that the driver's program may take
# what the driver calls a way between two cards, the best first
WAYS = {
    "NV": "NVLink",
    "PIX": "PCIe, one switch",
    "PXB": "PCIe, several switches",
    "PHB": "PCIe by way of the CPU",
    "NODE": "PCIe by way of the CPU",
    "SYS": "PCIe between two CPUs",
}
_RESET = re.compile(r"\x1b\[[0-9;]*m")


def nccl() -> str | None:
    """The version of NCCL, by which cards talk; None where PyTorch has none."""
    if not dist.is_available() or not dist.is_nccl_available():
        return None
    return ".".join(map(str, torch.cuda.nccl.version()))


def reaches(count: int) -> bool:
    """Whether each of the first cards can read the memory of each other."""
    return all(torch.cuda.can_device_access_peer(*pair) for pair in combinations(range(count), 2))


def topology() -> str:
    """What ``nvidia-smi topo -m`` says; nothing where it cannot be asked."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, "topo", "-m"], capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def slowest_way(table: str) -> str | None:
    """The worst way between two cards of such a table, in words; None where it tells of none."""
    rows = [line.split() for line in _RESET.sub("", table).splitlines() if re.match(r"\s*GPU\d+\s", line)]
    rows = [row for row in rows if "X" in row]  # without the heading
    found = [cell for row in rows for cell in row[1 : 1 + len(rows)] if cell != "X"]
    kinds = [next((kind for kind in WAYS if cell.startswith(kind)), None) for cell in found]
    known = [kind for kind in kinds if kind is not None]
    return WAYS[max(known, key=list(WAYS).index)] if known else None
