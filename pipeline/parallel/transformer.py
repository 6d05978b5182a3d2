"""The transformer on several cards: each computes some guidance passes, or a part of their tokens, or both.

What denoising calls in place of the model. All cards get all predictions, the same bits on each, so that each goes on
by itself: a step of the solver takes less time than sending its result. Passes that are whole on a card are computed
as one card computes them, to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch

from ..models.transformer.block import Block
from ..models.transformer.model import Context, StepCache, WanTransformer
from .cards import Cards, Groups
from .division import Division
from .exchange import gather
from .sequence import SplitSequence


class SharedTransformer:
    """Called as the model is, on all cards with the same.

    Args:
        divide: how to share a step of so many passes.
        one_division: whether all steps are shared as the first one is, since something is kept between them.
    """

    def __init__(
        self, model: WanTransformer, cards: Cards, divide: Callable[[int], Division], one_division: bool = False
    ) -> None:
        self._model = model
        self._cards = cards
        self._divide = divide
        self._one_division = one_division
        self._division: Division | None = None
        self._split: dict[Division, SplitSequence] = {}
        self.encode_text = model.encode_text
        self.encode_image = model.encode_image
        self.encode_text_for_image = model.encode_text_for_image
        self.embed_speech = model.embed_speech

    def __call__(
        self,
        latents: torch.Tensor,
        reference: torch.Tensor,
        timestep: float,
        contexts: Sequence[Context],
        blocks: Iterable[Block],
        cache: StepCache | None = None,
    ) -> list[torch.Tensor]:
        """See ``WanTransformer.forward``."""
        if self._division is None or not self._one_division:
            self._division = self._divide(len(contexts))
        groups = self._cards.groups(self._division)
        mine = groups.division.passes_of(groups.division.group(self._cards.rank), len(contexts))
        own = [contexts[index] for index in mine]
        if groups.sequence is not None:
            own = list(map(self._split_over(groups).own, own))
        with self._applied(groups):
            found = self._model(latents, reference, timestep, own, blocks, cache)
        return self._exchanged(groups, found, len(contexts))

    def _applied(self, groups: Groups) -> AbstractContextManager[None]:
        return nullcontext() if groups.sequence is None else self._split_over(groups).applied()

    def _split_over(self, groups: Groups) -> SplitSequence:
        if groups.division not in self._split:
            self._split[groups.division] = SplitSequence(self._model, groups.sequence)
        return self._split[groups.division]

    def _exchanged(self, groups: Groups, found: list[torch.Tensor], passes: int) -> list[torch.Tensor]:
        """All passes' predictions, in their order."""
        if groups.guidance is None:
            return found
        each = -(-passes // groups.division.guidance)
        own = torch.stack([*found, *(found[0] for _ in range(each - len(found)))])
        everyones = gather(groups.guidance, own)
        owners = map(groups.division.owner, range(passes))
        return [everyones[group, place] for group, place in owners]
