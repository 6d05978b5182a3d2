"""One slot for loaded models: weights stay in host memory from run to run, as long as a sampler is in the graph.

ComfyUI keeps a node's instance until the node leaves the graph or its caches are freed ("Free model and
node cache"); when no sampler's is left, the slot is emptied.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...pipeline.run.generator import Generator
    from ...pipeline.run.helpers import SeveralCards
    from ...pipeline.settings.definition import Settings


class Slot:
    """Holds the generator that ran last."""

    def __init__(self) -> None:
        self._key: object = None
        self._generator: Generator | SeveralCards | None = None
        self._holders = 0

    def hold(self, holder: object) -> None:
        """Keep what is loaded at least until ``holder`` is gone."""
        self._holders += 1
        weakref.finalize(holder, self._let_go)

    def get(self, settings: Settings, make_room: Callable[[int], None]) -> Generator | SeveralCards:
        """A generator for these settings: the one that is here if its models are the same, else a new one.

        For several cards it is one whose processes do the work.

        Raises:
            InputError: files are missing or of another kind.
        """
        from ...pipeline.run.generator import Generator, models_key

        key = models_key(settings), settings.gpus, settings.dit_fsdp
        if self._generator is None or key != self._key:
            self.empty()  # before the memory is needed again
            if settings.gpus > 1:
                from ...pipeline.run.helpers import SeveralCards

                self._generator = SeveralCards(settings, make_room)
            else:
                self._generator = Generator(settings, keep_models=True, make_room=make_room)
            self._key = key
        return self._generator

    def empty(self) -> None:
        held, self._generator, self._key = self._generator, None, None
        if held is not None:
            held.close()
            del held
            _trim()

    def _let_go(self) -> None:
        self._holders -= 1
        if self._holders == 0:
            self.empty()


def _trim() -> None:
    """Hand freed memory back to the system: glibc would keep most of what is in parts below 32 MB, as weights are."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:  # not every Linux has it
        trim(0)


SLOT = Slot()
