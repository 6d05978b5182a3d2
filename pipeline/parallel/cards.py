"""The processes of a run on several cards: who this one is, and what they tell each other.

One process a card, started by torchrun or by ``start``. The only room that names torch.distributed; knows nothing
about models.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import NoReturn, TypeVar

import torch
import torch.distributed as dist

from ..errors import InputError
from .division import Division, Rates
from .measuring import measure

T = TypeVar("T")
PATIENCE = timedelta(hours=2)  # as long as the first process may load and encode; one that ends, ends all at once
LOOKS = 0.5  # seconds between looks whether what started this process is still there
UNWINDS = 5.0  # seconds that an interrupted process may take to close its files


@dataclass(frozen=True)
class Groups:
    """The cards that this one works with.

    Attributes:
        sequence: those that share a pass's tokens with it; None if none does.
        guidance: those that have the same tokens of other passes; None if none has.
    """

    division: Division
    sequence: dist.ProcessGroup | None
    guidance: dist.ProcessGroup | None


@dataclass(frozen=True)
class Cards:
    """The processes of this run.

    Attributes:
        rank: number of this one, from 0; the first alone prints and writes.
        count: how many there are.
        device: where this one computes.
        rates: what they and the links between them can do; None where that was not measured.
    """

    rank: int
    count: int
    device: torch.device
    rates: Rates | None = None
    _groups: dict[Division, Groups] = field(default_factory=dict, compare=False)

    @property
    def first(self) -> bool:
        """Whether this one prints and writes."""
        return self.rank == 0

    def agreed(self, make: Callable[[], T]) -> T:
        """What the first process makes, for all; ``make`` is called there alone."""
        found = [make() if self.first else None]
        dist.broadcast_object_list(found, src=0)
        return found[0]  # type: ignore[return-value]  # the first has made it

    def gathered(self, value: T) -> list[T]:
        """What each process gives, the first one's first."""
        found: list[T] = [value] * self.count
        dist.all_gather_object(found, value)
        return found

    def same(self, tensor: torch.Tensor, of: int = 0) -> torch.Tensor:
        """The tensor of process ``of``, for all; that of another has its shape and is overwritten."""
        tensor = tensor.contiguous()
        dist.broadcast(tensor, src=of)
        return tensor

    def wait(self) -> None:
        """Go on when all have come here."""
        self.gathered(None)

    def groups(self, division: Division) -> Groups:
        """The groups of a division of all cards; all processes ask for the same ones in the same order."""
        if division not in self._groups:
            sequence, guidance = (
                self._mine(lists) for lists in (division.sequence_groups(), division.guidance_groups())
            )
            self._groups[division] = Groups(division, sequence, guidance)
        return self._groups[division]

    def _mine(self, lists: list[list[int]]) -> dist.ProcessGroup | None:
        groups = [dist.new_group(ranks, timeout=PATIENCE) for ranks in lists if len(lists[0]) > 1]  # all make all
        return next((group for group, ranks in zip(groups, lists, strict=False) if self.rank in ranks), None)

    @cached_property
    def everyone(self) -> dist.ProcessGroup:
        """A group of all cards, whose messages wait for no others."""
        return dist.new_group(timeout=PATIENCE)


def planned(count: int) -> Cards | None:
    """So many cards of a run that is planned and not made, by one process; None for one."""
    return Cards(0, count, torch.device("cpu")) if count > 1 else None


def join(device: str) -> Cards:
    """Meet the other processes; this one computes on the card of its number from then on.

    Args:
        device: as the setting: auto, cpu or cuda.

    Raises:
        InputError: there are more processes than cards.
    """
    rank, local, count = (int(os.environ[name]) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"))
    on_cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
    if device.startswith("cuda:"):
        raise InputError(
            f"--device: {device} found, but each of {count} processes has a card of its own; leave it out."
        )
    local_count = int(os.environ.get("LOCAL_WORLD_SIZE", str(count)))
    if not on_cpu and local_count > torch.cuda.device_count():
        raise InputError(
            f"{local_count} processes were started, but PyTorch sees {torch.cuda.device_count()} card(s) here; "
            "start as many processes as there are cards (--gpus, or torchrun's --nproc_per_node)."
        )
    found = torch.device("cpu")
    if not on_cpu:
        found = torch.device("cuda", local)
        torch.cuda.set_device(found)
    backend = "gloo" if on_cpu else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, rank=rank, world_size=count, timeout=PATIENCE)
    end_with(os.getppid())
    return Cards(rank, count, found, measure(count, found) if count > 1 else None)


def end_with(parent: int) -> None:
    """End this process when the one that started it has ended, or when it is interrupted, whatever it waits for."""
    interrupted, byte = os.pipe()
    os.set_blocking(byte, False)
    signal.set_wakeup_fd(byte)

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(LOOKS)
        os._exit(1)

    def listen() -> None:
        os.read(interrupted, 1)  # Python itself hears of it when a call to a card has returned, which may never be
        time.sleep(UNWINDS)
        os._exit(1)

    for work in (look, listen):
        threading.Thread(target=work, daemon=True).start()


def leave(code: int) -> NoReturn:
    """End this process at once: messages that the others no longer answer would keep it."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError, ValueError):
                stream.flush()
    os._exit(code)
