"""What a reader of a graph has to say: notes on what was mapped or left out, and everything that it refuses.

A reader goes on after a refusal as far as it can, so that all of them are told at once. Knows no graph.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ..errors import InputError
from ..export.exported import Take
from .graph import Unfilled

UNFILLED = "what a program fills in before it queues the graph"
MOST_REFUSALS = 50  # that are listed


@dataclass(frozen=True)
class Notes:
    """Sentences for the user, in the order in which they came up.

    Attributes:
        said: what became something else, or was left out.
        refused: what has no equivalent or is missing, a sentence each.
        others, nears, precisions: see ``Take``.
    """

    said: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    nears: list[str] = field(default_factory=list)
    precisions: list[str] = field(default_factory=list)

    def append(self, sentence: str) -> None:
        """Say something."""
        self.said.append(sentence)

    def other(self, because: str, sentence: str = "") -> None:
        """The video is another take, with a sentence where that does not say what it is about."""
        self.others.append(because)
        self.said.extend([sentence] if sentence else [])

    def near(self, upto: str, sentence: str = "") -> None:
        """The video is the same take up to something."""
        self.nears.append(upto)
        self.said.extend([sentence] if sentence else [])

    def precision(self, what: str, sentence: str = "") -> None:
        """Something rounds otherwise."""
        self.precisions.append(what)
        self.said.extend([sentence] if sentence else [])

    @property
    def take(self) -> Take:
        """What all of it means for the video."""
        return Take(*(tuple(dict.fromkeys(found)) for found in (self.others, self.nears, self.precisions)))

    def extend(self, sentences: Iterable[str]) -> None:
        """Say several things."""
        self.said.extend(sentences)

    def refuse(self, error: InputError) -> None:
        """Refuse, and go on; what is still to be filled in is only said."""
        if isinstance(error, Unfilled):
            self.near(UNFILLED, "" if error.note in self.said else error.note)
        else:
            self.refused.append(str(error))

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part that ends at its first refusal, where what comes after it does not."""
        try:
            yield
        except InputError as error:
            self.refuse(error)

    def quiet(self) -> Notes:
        """For reading something once more: what it says is not said again, what it refuses counts."""
        return Notes(refused=self.refused)

    def check(self, name: str) -> None:
        """Raises InputError: something was refused; with all of it, a line each after the first.

        Args:
            name: of the graph.
        """
        found = list(dict.fromkeys(self.refused))
        if not found:
            return
        if len(found) == 1:
            raise InputError(found[0])
        lines = [f"- {sentence.removeprefix(f'{name}: ')}" for sentence in found[:MOST_REFUSALS]]
        if (more := len(found) - MOST_REFUSALS) > 0:
            lines.append(f"- and {more} more.")
        raise InputError("\n".join([f"{name}: {len(found)} things in it cannot be part of a command:", *lines]))
