"""Sound that is made when it is first listened to, such as a voice that a network takes out of a mix.

So that planning can tell its length, and nothing is made that nobody hears. Knows nothing of how it is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .audio import Heard, Sound


@dataclass(eq=False)
class LateSound:
    """Sound that is not made yet, as ``Audio``; made once, then kept.

    Attributes:
        sample_rate, channels, num_samples: of what will be made.
        heard: what opening its source has shown.
        name: what to call it in messages.
    """

    sample_rate: int
    channels: int
    num_samples: int
    heard: Heard
    name: str
    _make: Callable[[], Sound] = field(repr=False)
    _made: Sound | None = field(default=None, repr=False)

    @classmethod
    def of(cls, sound: Sound) -> LateSound:
        """Sound that is there already."""
        return cls(sound.sample_rate, sound.channels, sound.num_samples, sound.heard, sound.name, lambda: sound, sound)

    def __str__(self) -> str:
        return self.name

    @property
    def seconds(self) -> float:
        return self.num_samples / self.sample_rate

    @property
    def is_made(self) -> bool:
        return self._made is not None

    def sound(self) -> Sound:
        """The sound itself; raises what making it raises."""
        if self._made is None:
            self._made = self._make()
        return self._made

    def blocks(self) -> Iterator[np.ndarray]:
        return self.sound().blocks()

    def digest(self) -> str:
        return self.sound().digest()
