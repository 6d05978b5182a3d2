"""What a run tells while it works: events, who listens to them, and one listener for consoles.

The engine calls a ``Progress`` with events; a listener that raises stops the run (that is how a host cancels).
The listener here writes lines; it knows nothing about how a video is made.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO


@dataclass(frozen=True)
class Loading:
    """Something begins that takes a while before the first window: loading a model, encoding the speech."""

    what: str


@dataclass(frozen=True)
class Notice:
    """A sentence that the user should read, such as that the speech is cut."""

    text: str


@dataclass(frozen=True)
class RunStarted:
    """The work ahead: windows, and length of the video in frames and seconds; what a resumed run has of them."""

    windows: int
    frames: int
    seconds: float
    windows_done: int = 0
    seconds_done: float = 0.0


@dataclass(frozen=True)
class WindowStarted:
    """Window ``index`` (from 0) of ``count`` begins."""

    index: int
    count: int


@dataclass(frozen=True)
class Step:
    """``done`` of ``count`` denoising steps of this window are done."""

    window: int
    done: int
    count: int


@dataclass(frozen=True)
class Decoding:
    """All steps of this window are done; its frames are being made of the latents."""

    window: int


@dataclass(frozen=True)
class WindowDone:
    """Window ``index`` is written; the video now lasts ``seconds``."""

    index: int
    count: int
    seconds: float


@dataclass(frozen=True)
class Finished:
    """The video is complete under its name."""

    path: Path


@dataclass(frozen=True)
class Kept:
    """The run stops early; ``windows`` finished windows of the video ``path`` lie in ``partial``."""

    path: Path
    partial: Path
    windows: int
    seed: int


Event = Loading | Notice | RunStarted | WindowStarted | Step | Decoding | WindowDone | Finished | Kept


class Progress(Protocol):
    """Anything that takes events."""

    def __call__(self, event: Event) -> None: ...


def no_progress(event: Event) -> None:
    """Listens and says nothing."""


class ConsoleProgress:
    """One updating line on a terminal, else a line for each window.

    Args:
        stream: where to write.
        interactive: whether a line can be written over; None asks the stream.
        clock: seconds, for tests.
    """

    def __init__(
        self, stream: TextIO, interactive: bool | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._interactive = stream.isatty() if interactive is None else interactive
        self._clock = clock
        self._width = 0
        self._created = self._began = clock()
        self._seconds = 0.0
        self._total_seconds = 0.0
        self._windows = 1
        self._before = RunStarted(1, 0, 0.0)

    def __call__(self, event: Event) -> None:
        match event:
            case Loading(what):
                self._line(f"{what} ...")
            case Notice(text):
                self._line(f"note: {text}")
            case RunStarted(windows, frames, seconds):
                self._windows, self._total_seconds, self._began = windows, seconds, self._clock()
                self._before, self._seconds = event, event.seconds_done
                self._line(f"{frames} frames, {seconds:.2f} s of video, {windows} window{'s' * (windows > 1)}")
                if event.windows_done:
                    self._line(f"going on after window {event.windows_done}/{windows}")
            case WindowStarted(index, _):
                self._update(f"{self._heading(index)}: preparing")
            case Step(window, done, count):
                left = _time_left(self._clock() - self._began, self._share(window + done / count))
                self._update(f"{self._heading(window)}, step {done}/{count}, {self._done()}{left}")
            case Decoding(window):
                self._update(f"{self._heading(window)}: decoding, {self._done()}")
            case WindowDone(index, _, seconds):
                self._seconds = seconds
                elapsed = self._clock() - self._began
                made = seconds - self._before.seconds_done
                speed = f", {elapsed / made:.1f} s of work for a second of video"
                left = _time_left(elapsed, self._share(index + 1))
                self._line(f"{self._heading(index)} done, {self._done()}{speed}{left}")
            case Finished():
                self._line(f"finished after {duration(self._clock() - self._created)}")
            case Kept(path, partial, windows, seed):
                self._line(f"stopped; {partial} keeps {windows} of {self._windows} windows and plays.")
                flags = f"--resume --save_file {shlex.quote(str(path))} --base_seed {seed}"
                self._line(f"To go on from there: the same command with {flags}")

    def _share(self, windows: float) -> float:
        """The part of this run's work that so many windows of the video are."""
        done = self._before.windows_done
        return (windows - done) / max(1, self._windows - done)

    def _heading(self, window: int) -> str:
        return f"window {window + 1}/{self._windows}"

    def _done(self) -> str:
        return f"{self._seconds:.2f} of {self._total_seconds:.2f} s of video"

    def _line(self, text: str) -> None:
        """A line that stays."""
        self._stream.write(self._over(text) + "\n")
        self._width = 0
        self._stream.flush()

    def _update(self, text: str) -> None:
        """A line that the next one replaces; nothing where lines cannot be replaced."""
        if self._interactive:
            self._stream.write(self._over(text))
            self._width = len(text)
            self._stream.flush()

    def _over(self, text: str) -> str:
        return f"\r{text.ljust(self._width)}" if self._interactive else text


def _time_left(elapsed: float, fraction: float) -> str:
    """From the share of all steps that is done; loading and decoding are spread over them."""
    if not 0 < fraction < 1:
        return ""
    return f", about {duration(elapsed * (1 - fraction) / fraction)} left"


def duration(seconds: float) -> str:
    """As h:mm:ss or m:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
