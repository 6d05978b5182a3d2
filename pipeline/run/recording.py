"""A video on disk in the making: each window is written while the next is made, and after it the state of the run.

Whatever ends a run, the windows so far play, and the run goes on after them. Knows nothing about how windows are made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType

from ..errors import InputError
from ..media.audio import FPS, Audio
from ..media.fragments import VideoFormat
from ..media.writer import VideoWriter, Written
from ..settings.roles import Json
from .progress import Finished, Progress, Stopped, WindowDone
from .resume import RunState, begin_state, check_unchanged, remove_state, save_state
from .sinks import feed
from .windows import Before, Window, Windows


@dataclass(frozen=True)
class Target:
    """What is written; see ``VideoWriter`` for what is not said here.

    Attributes:
        tags: metadata beside the settings.
    """

    path: Path
    video: VideoFormat
    soundtrack: Audio | None
    metadata: Mapping[str, object] | None
    tags: Mapping[str, str] | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Run:
    """What is made.

    Attributes:
        identity: what decides every frame (``job.identity.run_identity``).
        windows: how many are there from an earlier run, and ``written`` what the partial file holds of them.
        seed: which going on needs.
    """

    identity: dict[str, Json]
    windows: int
    seed: int
    written: Written | None = None


def record(target: Target, run: Run, windows: Windows, progress: Progress) -> Path:
    """Make what is missing of a video and write it; returns the path of the finished one.

    Args:
        windows: makes them, after those that are there.

    Raises:
        InputError: it cannot be written, or another process writes it.
    """
    path = target.path
    begin_state(path, run.identity)
    try:
        writer = VideoWriter(
            path, target.video, target.soundtrack, target.metadata, run.written, target.tags, target.overwrite
        )
    except InputError:
        remove_state(path)
        raise
    with Recording(writer, run.identity, run.windows, run.seed, progress) as recording:
        check_unchanged(path, run.windows)
        begin_state(path, run.identity)  # where another process has just removed it
        feed(recording, windows, progress)
    progress(Finished(path))
    return path


class Recording:
    """A ``Sink`` that writes a video. A context manager: leaving it early says what is kept and closes the file.

    Args:
        writer: of the video, entered and left here.
        identity: what decides every frame of the run (``job.identity.run_identity``).
        windows: how many are there from an earlier run.
        seed: of the run, which going on needs.
        tell: hears which windows are written and what is kept.
    """

    def __init__(self, writer: VideoWriter, identity: dict[str, Json], windows: int, seed: int, tell: Progress) -> None:
        self._writer = writer
        self._identity = identity
        self._windows = windows
        self._seed = seed
        self._tell = tell
        self._handover = Handover()

    @property
    def path(self) -> Path:
        return self._writer.path

    def __enter__(self) -> Recording:
        self._writer.__enter__()
        self._handover.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._handover.__exit__(kind, error, traceback)  # waits: the window under way may yet be kept
            if error is not None and self._windows:
                self._tell(Stopped(self.path, self._writer.partial, self._windows, self._seed))
        finally:
            self._writer.__exit__(kind, error, traceback)
            remove_state(self.path)

    def take(self, window: Window, state: Before) -> None:
        on_host = replace(state, motion=None if state.motion is None else state.motion.cpu())
        write = partial(self._write, window, on_host)
        self._handover.give(write, partial(self._tell_done, window.index, window.count))

    def look(self) -> None:
        self._handover.look()

    def finish(self) -> None:
        self._handover.wait()
        self._writer.finish()

    def _write(self, window: Window, state: Before) -> None:
        if window.index == 0:
            begin_state(self.path, self._identity, anew=True)
        self._writer.write_window(window.frames)
        self._windows = window.index + 1
        save_state(self.path, RunState(self._identity, self._windows, self._writer.written, state.motion, state.noise))

    def _tell_done(self, index: int, count: int) -> None:
        self._tell(WindowDone(index, count, self._writer.written.frames / FPS))


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
