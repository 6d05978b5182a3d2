"""The VAE on several cards: its tiles on different ones where it works in several, else all of it on the first.

What comes out is the same on all cards, to the last bit, and what one card makes of as many tiles. Knows nothing about
windows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from ..models.vae.model import WanVAE
from ..models.vae.tiles import Tile, room
from .cards import Cards


class SharedVae:
    """Called as the VAE is, on all cards with the same."""

    def __init__(self, vae: WanVAE, cards: Cards) -> None:
        self._vae = vae
        self._cards = cards
        self._tiles = SharedTiles(cards, vae.conv1.weight)
        self.move_to = vae.move_to

    def encode(self, video: torch.Tensor, tiles: int = 1) -> torch.Tensor:
        """See ``WanVAE.encode``."""
        return self._cards.same(self._vae.encode(self._cards.same(video), tiles, self._tiles))

    def encode_still(self, image: torch.Tensor, frames: int, tiles: int = 1) -> torch.Tensor:
        """See ``WanVAE.encode_still``."""
        return self._cards.same(self._vae.encode_still(image, frames, tiles, self._tiles))

    def decode_frames(self, latents: torch.Tensor, tiles: int = 1, clamp: bool = True) -> Iterator[torch.Tensor]:
        """See ``WanVAE.decode_frames``."""
        if tiles > 1:
            yield from self._vae.decode_frames(latents, tiles, clamp, self._tiles)
            return
        pieces = self._vae.decode_frames(latents, tiles, clamp) if self._cards.first else self._rooms(latents)
        for piece in pieces:
            yield self._cards.same(piece)

    def _rooms(self, latents: torch.Tensor) -> Iterator[torch.Tensor]:
        """Room for each piece that is decoded elsewhere."""
        (over_time, *over_space), (_, frames, height, width) = self._vae.stride, latents.shape
        size = height * over_space[0], width * over_space[1]
        for number in range(frames):
            yield torch.empty(3, over_time if number else 1, *size, device=latents.device)


class SharedTiles:
    """See ``models.vae.tiles.Cards``: each card makes every so-manieth tile.

    Args:
        like: a tensor of the dtype that the VAE computes in, on its device when it works.
    """

    def __init__(self, cards: Cards, like: torch.Tensor) -> None:
        self._cards = cards
        self._like = like

    def make(self, number: int) -> bool:
        return number % self._cards.count == self._cards.rank

    def complete(self, results: list[torch.Tensor], tiles: Sequence[Tile]) -> list[torch.Tensor]:
        """A message for each tile, with all of its pieces."""
        shapes = self._cards.agreed(lambda: [tuple(result.shape) for result in results])
        found = results or [room(shape, self._like) for shape in shapes]
        for number, tile in enumerate(tiles):
            places = [result[..., tile.place[0], tile.place[1]] for result in found]
            if self.make(number):
                flat = torch.cat([place.flatten() for place in places])
            else:
                flat = self._like.new_empty(sum(place.numel() for place in places))
            self._cards.same(flat, number % self._cards.count)
            for place, piece in zip(places, flat.split([place.numel() for place in places]), strict=True):
                place.copy_(piece.view(place.shape))
        return found
