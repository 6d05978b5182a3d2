"""What one worker does: keeps the models of a generator, and makes one video after the other.

The same in a process of this machine (``processes``), in an actor of a cluster (``cluster``) and in a class for a data
set (``dataset``). Imports PyTorch when it is first given something to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError
from ..job.output import partial_path, windows_done
from ..media.publishing import check_not_written
from ..settings.definition import Settings
from .finished import There, frames_in, look
from .results import DONE, FAILED, Result
from .tasks import Models, Task, said

if TYPE_CHECKING:
    from ..run.generator import Generator
    from ..run.progress import Event

PATIENCE = 60.0  # seconds for which a video may be written by the process of a lost worker
LOOKS = 0.2


@dataclass(frozen=True)
class Prompts:
    """An order: encode these, with the models of this task, so that all workers find them."""

    task: Task
    prompts: tuple[str, ...]


@dataclass(frozen=True)
class Make:
    """An order: make this video.

    Attributes:
        overwrite: whether another video of its name may be replaced.
    """

    task: Task
    overwrite: bool = False


Order = Prompts | Make


@dataclass(frozen=True)
class Advanced:
    """How far a task is: whole windows, and with the one under way."""

    id: str
    windows: int
    done: float


@dataclass(frozen=True)
class Remark:
    """What should be known about a task."""

    id: str
    text: str


@dataclass(frozen=True)
class Outcome:
    """How an order ended; ``result`` is None for prompts.

    Attributes:
        there: whether the video was there already.
        fault: the traceback of what is a fault of the program, after which the worker had better end.
    """

    result: Result | None = None
    there: bool = False
    fault: str = ""


News = Advanced | Remark
Tell = Callable[[News], None]


class Worker:
    """Makes videos with the models that it keeps.

    Args:
        tell: hears how far a video is.
    """

    def __init__(self, tell: Tell = lambda news: None) -> None:
        self._tell = tell
        self._generator: Generator | None = None
        self._models: Models | None = None
        self._threads: int | None = None

    def begin(self) -> None:
        """Import what videos need, which takes a while."""
        from ..run import generator  # noqa: F401

    def do(self, order: Order) -> Outcome:
        """Do what is ordered. Whatever goes wrong with a video is told in its result."""
        if isinstance(order, Prompts):
            return self._encode(order)
        began, task = time.monotonic(), order.task
        try:
            if look(task, order.overwrite) is There.DONE:
                return Outcome(Result(task.id, DONE, None, frames_in(task.path), str(task.path)), there=True)
            self._make(order)
            took = round(time.monotonic() - began, 3)
            return Outcome(Result(task.id, DONE, took, frames_in(task.path), str(task.path)))
        except Exception as error:
            return self._failed(task, time.monotonic() - began, error)

    def _encode(self, order: Prompts) -> Outcome:
        try:
            self._ready(order.task).encode_prompts(order.prompts)
        except Exception:  # the videos meet the same, and tell it
            self._forget()
        return Outcome()

    def _make(self, order: Make) -> None:
        from ..run.generator import memory_errors

        task = order.task
        _wait_until_free(task)
        settings = task.settings.replace(resume=True, overwrite=order.overwrite)
        with memory_errors():
            generator = self._ready(task)
            generator.progress = _Listener(task, self._tell)
            if windows_done(task.path):
                try:
                    settings = _as_begun(task, settings)
                    generator.prepare(task.job, task.path, settings)
                except InputError:  # it was begun as another video, or is damaged
                    if not order.overwrite:
                        raise
                    settings = settings.replace(resume=False)
            generator.save(task.job, task.path, settings)

    def _ready(self, task: Task) -> Generator:
        """The generator for a task; another one's models go first."""
        import torch

        from ..run.generator import Generator

        if self._generator is None or self._models != task.models:
            self._forget()
            if self._threads is None:
                self._threads = torch.get_num_threads()
            torch.set_num_threads(self._threads)  # which another generator's settings may have changed
            self._generator, self._models = Generator(task.settings), task.models
        return self._generator

    def _forget(self) -> None:
        import gc

        import torch

        self._generator = self._models = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _failed(self, task: Task, seconds: float, error: Exception) -> Outcome:
        sentence, fault = said(error)
        if fault or isinstance(error.__cause__, MemoryError | RuntimeError):
            self._forget()
        return Outcome(Result(task.id, FAILED, round(seconds, 3), error=sentence), fault=fault)


def _wait_until_free(task: Task) -> None:
    """Wait for the process of a lost worker, which may write its video a while longer.

    Raises:
        InputError: somebody still does.
    """
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return check_not_written(partial_path(task.path), task.path)
        except InputError:
            if time.monotonic() > until:
                raise
            time.sleep(LOOKS)


def _as_begun(task: Task, settings: Settings) -> Settings:
    """With the seed that the video was begun with, where it may be any."""
    from ..run.resume import load_state

    state = load_state(task.path) if task.any_seed else None
    seed = None if state is None else state.identity.get("base_seed")
    return settings.replace(base_seed=seed) if isinstance(seed, int) else settings


class _Listener:
    """Turns what the engine tells of a video into what is told of a task."""

    def __init__(self, task: Task, tell: Tell) -> None:
        self._task = task
        self._tell = tell
        self._windows = 1

    def __call__(self, event: Event) -> None:
        from ..planning.notices import Notice
        from ..run.progress import RunStarted, Step, WindowDone

        match event:
            case RunStarted(windows=windows, windows_done=done):
                self._windows = windows
                self._advanced(done)
            case Step(window=window, done=done, count=count):
                self._advanced(window + done / (count + 1))
            case WindowDone(index=index):
                self._advanced(index + 1)
            case Notice(text=text, warning=True):
                self._tell(Remark(self._task.id, text))

    def _advanced(self, done: float) -> None:
        self._tell(Advanced(self._task.id, self._windows, done))
