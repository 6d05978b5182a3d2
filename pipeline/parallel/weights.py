"""Weights of which each card keeps a part: how the cards come to have a block whole.

Messages of its own group, so that they wait for no others. Knows neither blocks nor what their bytes mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class SharedWeights:
    """See ``residency.part.Sharing`` and ``models.text.encoder.Cards``; the cards of a group."""

    group: dist.ProcessGroup

    @property
    def place(self) -> int:
        return dist.get_rank(self.group)

    @property
    def count(self) -> int:
        return dist.get_world_size(self.group)

    def send(self, tensor: torch.Tensor, of: int) -> None:
        """Make the tensor of every card that of card ``of``."""
        dist.broadcast(tensor, dist.get_global_rank(self.group, of), group=self.group)

    def gather(self, whole: torch.Tensor) -> None:
        """Fill bytes of which each card has its own part; on a card work that follows waits, not this process."""
        own = whole.view(self.count, -1)[self.place]
        dist.all_gather_into_tensor(whole, own, group=self.group)
