"""What takes the windows of a video as they are finished: a file on disk (``recording``), a host, a live stream.

Knows neither how windows are made nor what becomes of them.
"""

from __future__ import annotations

from typing import Protocol

from .progress import Event, Progress
from .windows import Before, Window, Windows


class Sink(Protocol):
    """Takes windows in order."""

    def take(self, window: Window, state: Before) -> None:
        """Take the next window. What takes time may go on beside the making of the one after it.

        Args:
            state: all that a run needs to go on from here, on any device.
        """

    def look(self) -> None:
        """Called often while a window is made: the time to tell what was finished meanwhile, or what failed."""

    def finish(self) -> None:
        """All windows have been taken; returns when everything is done with them."""


def feed(sink: Sink, windows: Windows, progress: Progress) -> None:
    """Hand windows to a sink as they are made, to its end."""

    def listen(event: Event) -> None:
        sink.look()
        progress(event)

    for window, state in windows(listen):
        sink.take(window, state)
    sink.finish()
