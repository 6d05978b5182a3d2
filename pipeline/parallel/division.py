"""How several cards share a step: guidance passes on different cards, and the tokens of a pass on several.

Arithmetic alone: knows no processes and no card, and imports no PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from ..errors import InputError

EXCHANGED = 4  # numbers that leave a card for each token that it does not keep and channel: q, k, v and the result
REACHED = 0.6  # of what a large product alone reaches, what a whole block does
CLEARLY = 1.1  # how much sooner another division must be done to be taken: what was measured varies


@dataclass(frozen=True)
class Division:
    """Cards in a grid: ``guidance`` groups that each take some passes, of ``sequence`` cards that share the tokens.

    A card's number is ``group * sequence + place``.
    """

    guidance: int = 1
    sequence: int = 1

    @property
    def cards(self) -> int:
        """How many there are."""
        return self.guidance * self.sequence

    def group(self, card: int) -> int:
        """The guidance group of a card."""
        return card // self.sequence

    def passes_of(self, group: int, passes: int) -> tuple[int, ...]:
        """The numbers of the passes that a guidance group computes; one without any computes the first again."""
        return tuple(range(group, passes, self.guidance)) or (0,)

    def owner(self, number: int) -> tuple[int, int]:
        """The group that computes pass ``number``, and its place among that group's."""
        return number % self.guidance, number // self.guidance

    def sequence_groups(self) -> list[list[int]]:
        """The cards that share tokens, group by group."""
        return [[group * self.sequence + place for place in range(self.sequence)] for group in range(self.guidance)]

    def guidance_groups(self) -> list[list[int]]:
        """The cards that have the same tokens of different passes, place by place."""
        return [[group * self.sequence + place for group in range(self.guidance)] for place in range(self.sequence)]

    def __str__(self) -> str:
        passes = f"guidance passes on {self.guidance} cards" if self.guidance > 1 else ""
        tokens = f"the tokens of a pass on {self.sequence} cards" if self.sequence > 1 else ""
        return " x ".join(filter(None, (passes, tokens))) or "one card"


ONE_CARD = Division()


@dataclass(frozen=True)
class Rates:
    """What cards and links can do.

    Attributes:
        link: bytes a second that each card sends to the others while all do.
        products: floating-point operations a second of a card, in a large product.
    """

    link: float
    products: float


@dataclass(frozen=True)
class Speed:
    """What decides how cards best share a step.

    Attributes:
        tokens: of a window.
        dim, blocks: of the transformer.
        parameters: of a block.
    """

    rates: Rates
    tokens: int
    dim: int
    blocks: int
    parameters: int

    def exchange(self, sequence: int, itemsize: int = 2) -> float:
        """Seconds that one pass's tokens are on their way, shared by so many cards."""
        leaving = EXCHANGED * self.tokens / sequence * (sequence - 1) / sequence * self.dim * itemsize
        return self.blocks * leaving / self.rates.link

    @property
    def computing(self) -> float:
        """Seconds of a pass on one card: products with the weights, and attention."""
        attention = 4 * self.tokens**2 * self.dim
        return self.blocks * (2 * self.tokens * self.parameters + attention) / (REACHED * self.rates.products)

    def step(self, division: Division, passes: int) -> float:
        """Seconds of a step."""
        alone = self.computing / division.sequence
        return ceil(passes / division.guidance) * (alone + self.exchange(division.sequence))


def divisions(cards: int, heads: int) -> Iterable[Division]:
    """All of so many cards, those first whose passes go furthest apart; cards without a head are of no use."""
    for guidance in range(cards, 0, -1):
        if cards % guidance == 0 and cards // guidance <= heads:
            yield Division(guidance, cards // guidance)


def divide(cards: int, passes: int, heads: int, sequence: int = 1, speed: Speed | None = None) -> Division:
    """How to share a step of so many passes.

    Args:
        heads: of the model's attention.
        sequence: the cards that share a pass's tokens, where the settings say it; 1: what is best.
        speed: of cards and links; without it passes go apart as far as they go evenly, since nothing is exchanged
            then while a step is computed. With it, links may be so slow that cards do the same rather than talk.

    Raises:
        InputError: the cards cannot be divided so.
    """
    if sequence > 1:
        if cards % sequence:
            raise InputError(
                f"--ulysses_size times --ring_size is {sequence}, but there are {cards} processes; their number must "
                f"be a multiple. Give --ulysses_size {cards}, or leave both out: the division is chosen then."
            )
        if sequence > heads:
            raise InputError(
                f"--ulysses_size times --ring_size is {sequence}, but the model has {heads} heads to share; "
                f"give at most {heads}."
            )
        return Division(cards // sequence, sequence)
    found = list(divisions(cards, heads))
    useful = [division for division in found if division.guidance <= passes]
    if not useful:
        raise InputError(f"{cards} cards cannot share a model of {heads} heads; use at most {heads}.")
    best = min(useful, key=lambda division: ceil(passes / division.guidance) / division.sequence)
    if speed is None:
        return best
    sooner = min(found, key=lambda division: speed.step(division, passes))
    return sooner if CLEARLY * speed.step(sooner, passes) < speed.step(best, passes) else best
