"""The VAE on several cards: tiles on different ones where there are several, all of a picture on the first otherwise.

What comes out is the same on all cards, to the last bit. Knows nothing about windows.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..models.vae.model import WanVAE
from .cards import Cards


class SharedVae:
    """Called as the VAE is, on all cards with the same."""

    def __init__(self, vae: WanVAE, cards: Cards) -> None:
        self._vae = vae
        self._cards = cards
        self.move_to = vae.move_to

    def encode(self, video: torch.Tensor, tiles: int = 1) -> torch.Tensor:
        """See ``WanVAE.encode``."""
        return self._cards.same(self._vae.encode(self._cards.same(video), tiles))

    def encode_still(self, image: torch.Tensor, frames: int, tiles: int = 1) -> torch.Tensor:
        """See ``WanVAE.encode_still``."""
        return self._cards.same(self._vae.encode_still(image, frames, tiles))

    def decode_frames(self, latents: torch.Tensor, tiles: int = 1, clamp: bool = True) -> Iterator[torch.Tensor]:
        """See ``WanVAE.decode_frames``."""
        if self._cards.first:
            pieces = self._vae.decode_frames(latents, tiles, clamp)
        else:
            pieces = self._rooms(latents)
        for piece in pieces:
            yield self._cards.same(piece)

    def _rooms(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Room for each piece that is decoded elsewhere."""
        (over_time, *over_space), (_, frames, height, width) = self._vae.stride, latents.shape
        size = height * over_space[0], width * over_space[1]
        for number in range(frames):
            yield torch.empty(3, over_time if number else 1, *size, device=latents.device)
