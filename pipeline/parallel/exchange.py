"""Messages between cards that share a pass's tokens: heads for tokens before attention, tokens for heads after it.

Bytes are sent as they are, whatever their type, in pieces as large as the cards' shares, which may differ. Knows
neither models nor what is attended to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.distributed as dist


class Work(Protocol):
    """A message on its way."""

    def wait(self) -> None: ...


@dataclass(frozen=True)
class Arriving:
    """A tensor that others are sending; ``sent`` is kept until it has left."""

    work: Work
    tensor: torch.Tensor
    sent: torch.Tensor

    def wait(self) -> torch.Tensor:
        """The tensor; work on the card that follows begins when it is there."""
        self.work.wait()
        return self.tensor


def cuts(size: int, parts: int) -> list[int]:
    """Where ``size`` is cut in nearly equal parts, both ends among them."""
    return [size * part // parts for part in range(parts + 1)]


def send(group: dist.ProcessGroup, pieces: Sequence[torch.Tensor], rows: Sequence[int], row: torch.Size) -> Arriving:
    """Begin to give each card of the group its piece, and to take one of each.

    Args:
        pieces: one a card, of any shapes.
        rows: how many rows each sends here.
        row: the shape of a row.

    Returns:
        All rows that come, in the order of the cards: [sum of rows, *row].
    """
    first = pieces[0]
    sent = torch.empty(sum(piece.numel() for piece in pieces), dtype=first.dtype, device=first.device)
    done = 0
    for piece in pieces:
        sent[done : done + piece.numel()].view(piece.shape).copy_(piece)
        done += piece.numel()
    return _exchange(group, sent, [piece.numel() for piece in pieces], rows, row)


def send_rows(group: dist.ProcessGroup, x: torch.Tensor, counts: Sequence[int], came: Sequence[int]) -> Arriving:
    """The same with a tensor whose rows go to the cards in their order, ``counts`` to each; contiguous.

    Args:
        came: how many numbers each card sends here. They come one after another, flat.
    """
    size = x[0].numel()
    return _exchange(group, x.flatten(), [count * size for count in counts], came, torch.Size())


def _exchange(
    group: dist.ProcessGroup, sent: torch.Tensor, leaving: Sequence[int], rows: Sequence[int], row: torch.Size
) -> Arriving:
    size = row.numel()
    arriving = torch.empty((sum(rows), *row), dtype=sent.dtype, device=sent.device)
    each = sent.itemsize
    work = dist.all_to_all_single(
        arriving.flatten().view(torch.uint8),
        sent.view(torch.uint8),
        [count * size * each for count in rows],
        [count * each for count in leaving],
        group=group,
        async_op=True,
    )
    return Arriving(work, arriving, sent)


def gather_padded(group: dist.ProcessGroup, x: torch.Tensor, lengths: Sequence[int], dim: int) -> torch.Tensor:
    """The cards' tensors one after another along ``dim``, of which each has its own of ``lengths``; on all of them."""
    longest = max(lengths)
    shape = list(x.shape)
    shape[dim] = longest
    own = x.new_zeros(shape)
    own.narrow(dim, 0, x.shape[dim]).copy_(x)
    found = gather(group, own)
    return torch.cat([part.narrow(dim, 0, length) for part, length in zip(found, lengths, strict=True)], dim=dim)


def gather(group: dist.ProcessGroup, x: torch.Tensor) -> torch.Tensor:
    """The cards' tensors of one shape, stacked in their order; on all of them."""
    x = x.contiguous()
    found = x.new_empty((dist.get_world_size(group), *x.shape))
    dist.all_gather_into_tensor(found.flatten().view(torch.uint8), x.flatten().view(torch.uint8), group=group)
    return found
