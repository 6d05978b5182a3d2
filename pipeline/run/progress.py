"""What a run tells while it works: events, who listens to them, and the same in sentences.

The engine calls a ``Progress`` with events; a listener that raises stops the run (that is how a host cancels).
The listener here writes lines to a console; none knows how a video is made.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..errors import printable
from ..facts.language import spoken
from ..planning.notices import Notice

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Loading:
    """Something begins that takes a while before the first window: loading a model, encoding the speech."""

    what: str


@dataclass(frozen=True)
class BlockLoaded:
    """``done`` of the transformer's ``count`` blocks are where they will live."""

    done: int
    count: int


@dataclass(frozen=True)
class Fact:
    """What turned out during the run and can be told only then: what stayed on the card, what it took."""

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
class Working:
    """A small part of a step or of decoding is about to begin, such as a transformer block: a chance to stop."""


@dataclass(frozen=True)
class Step:
    """``done`` of ``count`` denoising steps of this window are done.

    Attributes:
        estimate: the clean latents as far as they can be told by now, [z, T, h, w] on the model's device.
    """

    window: int
    done: int
    count: int
    estimate: Tensor | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Decoding:
    """All steps of this window are done; its frames are being made of the latents."""

    window: int


@dataclass(frozen=True)
class Decoded:
    """The frames that this window adds to the video, uint8 [T, H, W, 3] on the CPU, are there."""

    window: int
    frames: Tensor = field(compare=False, repr=False)


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
class Stopped:
    """The run stops early; ``windows`` finished windows of the video ``path`` lie in ``partial``."""

    path: Path
    partial: Path
    windows: int
    seed: int


Preparing = Loading | BlockLoaded | Notice | Fact | RunStarted
Making = WindowStarted | Working | Step | Decoding | Decoded | WindowDone
Event = Preparing | Making | Finished | Stopped


class Console(Protocol):
    """Where lines go. Nothing that happens to it may end a run: ``write`` raises nothing."""

    def isatty(self) -> bool:
        """Whether a line can be written over."""

    def write(self, text: str) -> None:
        """Show the text at once."""


class Progress(Protocol):
    """Anything that takes events."""

    def __call__(self, event: Event) -> None: ...


def no_progress(event: Event) -> None:
    """Listens and says nothing."""


@dataclass(frozen=True)
class Line:
    """A sentence about a run.

    Attributes:
        stays: whether the next one leaves it there.
        warning: whether who wants little told wants this.
    """

    text: str
    stays: bool
    warning: bool = False


class Narrator:
    """Puts events into sentences: window k of N, step i of n, seconds of video done, time left.

    Args:
        clock: seconds, for tests.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._created = self._began = clock()
        self._seconds = 0.0
        self._total_seconds = 0.0
        self._windows = 1
        self._before = RunStarted(1, 0, 0.0)

    def tell(self, event: Event) -> list[Line]:
        """What there is to say about this event; nothing about some."""
        match event:
            case Loading(what):
                return [Line(f"{what} ...", True)]
            case BlockLoaded(done, count):
                return [Line(f"loading the transformer: block {done}/{count}", False)]
            case Notice(text, warning):
                return [Line(f"{'warning' if warning else 'note'}: {text}", True, warning)]
            case Fact(text):
                return [Line(f"note: {text}", True)]
            case RunStarted():
                return self._run_started(event)
            case WindowStarted(index, _):
                return [Line(f"{self._heading(index)}: preparing", False)]
            case Step(window, done, count):
                left = _time_left(self._clock() - self._began, self._share(window + done / count))
                return [Line(f"{self._heading(window)}, step {done}/{count}, {self._done()}{left}", False)]
            case Decoding(window):
                return [Line(f"{self._heading(window)}: decoding, {self._done()}", False)]
            case WindowDone():
                return [self._window_done(event)]
            case Finished():
                return [Line(f"finished after {duration(self._clock() - self._created)}", True)]
            case Stopped(path, partial, windows, seed):
                flags = f"--resume --save_file {shlex.quote(str(path))} --base_seed {seed}"
                kept = f"stopped; {partial} keeps {windows} of {self._windows} windows and plays."
                return [
                    Line(kept, True, warning=True),
                    Line(f"To go on from there: the same command with {flags}", True, warning=True),
                ]
        return []

    def _run_started(self, event: RunStarted) -> list[Line]:
        self._windows, self._total_seconds, self._began = event.windows, event.seconds, self._clock()
        self._before, self._seconds = event, event.seconds_done
        count = f"{event.windows} window{'s' * (event.windows > 1)}"
        lines = [Line(f"{event.frames} frames, {event.seconds:.2f} s of video, {count}", True)]
        if event.windows_done:
            lines.append(Line(f"going on after window {event.windows_done}/{event.windows}", True))
        return lines

    def _window_done(self, event: WindowDone) -> Line:
        self._seconds = event.seconds
        elapsed = self._clock() - self._began
        made = event.seconds - self._before.seconds_done
        speed = f", {elapsed / made:.1f} s of work for a second of video"
        left = _time_left(elapsed, self._share(event.index + 1))
        return Line(f"{self._heading(event.index)} done, {self._done()}{speed}{left}", True)

    def _share(self, windows: float) -> float:
        """The part of this run's work that so many windows of the video are."""
        done = self._before.windows_done
        return (windows - done) / max(1, self._windows - done)

    def _heading(self, window: int) -> str:
        return f"window {window + 1}/{self._windows}"

    def _done(self) -> str:
        return f"{self._seconds:.2f} of {self._total_seconds:.2f} s of video"


class ConsoleProgress:
    """One updating line on a terminal, else a line for each window.

    Args:
        console: where to write.
        interactive: whether a line can be written over; None asks the console.
        warn: takes the lines that are warnings; the console unless given.
        clock: seconds, for tests.
    """

    def __init__(
        self,
        console: Console,
        interactive: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
        warn: Callable[[str], object] | None = None,
    ) -> None:
        self._write_line, self._warn = console.write, console.write if warn is None else warn
        self._interactive = console.isatty() if interactive is None else interactive
        self._narrator = Narrator(clock)
        self._width = 0

    def __call__(self, event: Event) -> None:
        for line in self._narrator.tell(event):
            if line.stays:
                self._write(line, "\n", 0)
            elif self._interactive:
                self._write(line, "", len(spoken(line.text)))

    def _write(self, line: Line, end: str, width: int) -> None:
        text = printable(spoken(line.text))
        over = f"\r{text.ljust(self._width)}" if self._interactive else text
        (self._warn if line.warning else self._write_line)(over + end)
        self._width = width


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
