"""Work that a thread of its own does while the main flow goes on, one piece at a time. Knows not what it is."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType


class Handover:
    """Takes work in order. A context manager: leaving it waits for the piece that is under way.

    What a piece of work raises, the next call here raises in the main flow.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._under_way: tuple[Future, Callable[[], None]] | None = None

    def __enter__(self) -> Handover:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._thread.shutdown()

    def give(self, work: Callable[[], None], then: Callable[[], None]) -> None:
        """Begin a piece of work, once the one before is done.

        Args:
            then: called in the main flow, by the next call that finds the work done.
        """
        self.wait()
        self._under_way = self._thread.submit(work), then

    def look(self) -> None:
        """See whether the work is done."""
        if self._under_way is not None and self._under_way[0].done():
            self.wait()

    def wait(self) -> None:
        """Wait until the work is done."""
        if self._under_way is not None:
            (work, then), self._under_way = self._under_way, None
            work.result()
            then()
