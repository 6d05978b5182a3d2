"""How fast these cards compute and talk, measured in an instant when they meet; the slowest of them counts.

Decides how a step is shared, where several ways are near each other never by a hair (``division.divide``).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.distributed as dist

from .division import Rates

# rows and columns of the product, and the bytes that each card sends to all: on a card enough to be at full speed
ON_CARD = (8192, 5120, 2**26)
ON_CPU = (256, 512, 2**20)
REPEATS = 3


def measure(count: int, device: torch.device) -> Rates:
    """What so many processes, all of which call this, get out of their cards and of what is between them."""
    rows, width, message = ON_CPU if device.type == "cpu" else ON_CARD
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    x, y = torch.zeros(rows, width, dtype=dtype, device=device), torch.zeros(width, width, dtype=dtype, device=device)
    sent = torch.zeros(message // count * count, dtype=torch.uint8, device=device)
    came = torch.empty_like(sent)
    product = _seconds(lambda: torch.mm(x, y), device)
    exchange = _seconds(lambda: dist.all_to_all_single(came, sent), device)
    slowest = torch.tensor([product, exchange], dtype=torch.float64, device=device)
    dist.all_reduce(slowest, op=dist.ReduceOp.MAX)  # so that all decide alike
    product, exchange = slowest.tolist()
    return Rates(link=len(sent) * (count - 1) / count / exchange, products=2 * rows * width**2 / product)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The least that it took, after once that does not count."""
    found = []
    for _ in range(1 + REPEATS):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        found.append(time.perf_counter() - began)
    return max(min(found[1:]), 1e-9)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
