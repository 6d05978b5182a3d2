"""Where the transformer's blocks live, each in three parts that are needed at different times.

A step needs what computes on a window's tokens. What makes keys and values of text and image, more than a fifth
of a block, is needed once for a prompt or a reference image, so it stays on the device only where there is plenty
of room. Knows no sizes: what stays is decided in ``planning.memory``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from ...residency.part import Sharing
from ...residency.staging import Staging
from ...residency.streamer import ALL, BlockStreamer
from .block import IMAGE_LAYERS, TEXT_LAYERS, Block


class TransformerBlocks:
    """Iterate for a step. ``text`` and ``image`` are iterated to make keys and values, while no step runs.

    Args:
        device: where blocks run.
        resident: how many of the first blocks stay on the device.
        contexts_stay: whether what makes keys and values of text and image stays there too.
        offload: give all device memory back on ``to_host``.
        sharing: the cards that keep a part of every block each; None: this one keeps all.

    Attributes:
        staging: brings weights to the device while blocks are added.
    """

    def __init__(
        self,
        device: torch.device,
        resident: int,
        contexts_stay: bool = True,
        offload: bool = False,
        sharing: Sharing | None = None,
    ) -> None:
        self.device = device
        self.staging = Staging(device)
        made = partial(BlockStreamer, device, offload=offload, staging=self.staging, sharing=sharing)
        self._steps = made(resident)
        contexts = ALL if contexts_stay else 0
        self.text, self.image = (made(contexts, again=False) for _ in range(2))

    @property
    def _parts(self) -> tuple[BlockStreamer, BlockStreamer, BlockStreamer]:
        return self._steps, self.text, self.image

    @property
    def resident(self) -> int:
        return self._steps.resident

    @property
    def contexts_stay(self) -> bool:
        return self.text.resident > 0

    def add(self, block: Block) -> None:
        """Take the next block, whose parameters may be anywhere."""
        text, image = (
            [parameter for layer in layers for parameter in block.cross_attn.get_submodule(layer).parameters()]
            for layers in (TEXT_LAYERS, IMAGE_LAYERS)
        )
        others = {id(parameter) for parameter in (*text, *image)}
        self._steps.add(block, [parameter for parameter in block.parameters() if id(parameter) not in others])
        self.text.add(block, text)
        self.image.add(block, image)

    def end_loading(self) -> None:
        """All blocks are there: give back what helped to take them."""
        for part in self._parts:
            part.end_loading()

    def __iter__(self) -> Iterator[Block]:
        return iter(self._steps)

    def place(self, resident: int, contexts_stay: bool) -> None:
        """Change what stays; see ``BlockStreamer.place``."""
        self._steps.place(resident)
        for part in (self.text, self.image):
            part.place(ALL if contexts_stay else 0)

    def to_device(self) -> None:
        """Bring what stays to the device, if it is not there."""
        for part in self._parts:
            part.to_device()

    def to_host(self) -> None:
        """Give device memory back as far as the weights are kept in host memory too."""
        for part in self._parts:
            part.to_host()

    def free_slots(self) -> None:
        """Give the memory of blocks that are copied in back until the next step."""
        self._steps.free_slots()


def is_context_layer(name: str) -> bool:
    """Whether this is a parameter of the layers that make keys and values of text and image."""
    parts = name.split(".")
    return "cross_attn" in parts and not {*TEXT_LAYERS, *IMAGE_LAYERS}.isdisjoint(parts)
