"""How a batch goes on, for people: bars on a terminal (by tqdm, which comes with transformers), else a line a job."""

from __future__ import annotations

import contextlib
import importlib
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from types import TracebackType
from typing import Any

from ..batch.results import FAILED
from ..batch.run import Counts
from ..batch.tasks import Task
from ..batch.worker import Advanced, News, Outcome
from ..run.progress import duration
from .console import note
from .log import keep


class Board:
    """A ``Watcher`` that writes to stderr. A context manager.

    Args:
        quiet: say nothing.
        shard: of the jobs, (number from 0, of how many).
        clock: seconds, for tests.
    """

    def __init__(self, quiet: bool, shard: tuple[int, int], clock: Callable[[], float] = time.monotonic) -> None:
        self._quiet = quiet
        self._shard = shard
        self._clock = clock
        self._began = clock()
        self._jobs = self._ended = self._failed = 0
        self._tasks: dict[str, Task] = {}
        self._shares: dict[str, float] = {}
        self._bars: _Bars | None = None

    def __enter__(self) -> Board:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.close()

    def planned(self, tasks: list[Task], counts: Counts, jobs: int) -> None:
        self._jobs, self._tasks = jobs, {task.id: task for task in tasks}
        windows = sum(task.windows for task in tasks)
        index, count = self._shard
        if count > 1:
            self._say(f"part {index + 1} of {count} of the jobs")
        self._say(
            f"{jobs} jobs: {len(tasks)} to make, of {windows} windows, {counts.there} there already, "
            f"{counts.failed} refused"
        )
        if tasks and not self._quiet:
            self._bars = _Bars.on_a_terminal(sum(task.work for task in tasks))

    def begun(self, worker: Hashable, task: Task) -> None:
        if self._bars is not None:
            self._bars.show(worker, f"{task.id}: preparing")

    def told(self, worker: Hashable, news: News) -> None:
        if not isinstance(news, Advanced):
            self._say(f"warning: {news.id}: {news.text}")
        elif self._bars is not None:
            done = news.done / max(1, news.windows)
            self._advance(news.id, done)
            self._bars.show(worker, f"{news.id}: {news.done:.1f} of {news.windows} windows")

    def ended(self, id: str, outcome: Outcome) -> None:
        result = outcome.result
        assert result is not None
        self._ended += 1
        self._failed += result.state == FAILED
        self._advance(id, 1.0)
        if outcome.fault:
            keep(outcome.fault, "error")
        name = f"{self._ended}/{self._jobs} {id}" if self._jobs else id
        if result.state == FAILED:
            self._say(f"{name} failed: {result.error}")
        elif not outcome.there:
            self._say(f"{name} done, {result.frames} frames in {result.seconds or 0:.1f} s")

    def lost(self, id: str | None, reason: str, again: bool) -> None:
        if again:
            self._say(f"warning: {id or 'prompts'}: {reason}; another one takes its place")

    def done(self, counts: Counts) -> None:
        """Say how it all ended."""
        if self._bars is not None:
            self._bars.close()
            self._bars = None
        self._say(
            f"{counts.made} made, {counts.there} there already, {counts.failed} failed, "
            f"in {duration(self._clock() - self._began)}"
        )

    def _advance(self, id: str, share: float) -> None:
        task = self._tasks.get(id)
        if task is None or self._bars is None:
            return
        before = self._shares.get(id, 0.0)
        self._shares[id] = max(share, before)
        done = sum(int(share * self._tasks[each].windows) for each, share in self._shares.items())
        windows = f"{done}/{sum(each.windows for each in self._tasks.values())} windows"
        jobs = f"{self._ended}/{self._jobs} jobs, {self._failed} failed"
        self._bars.advance(task.work * (self._shares[id] - before), f"{jobs}, {windows}")

    def _say(self, text: str) -> None:
        if not self._quiet:
            with contextlib.nullcontext() if self._bars is None else self._bars.aside():
                note(text)


class _Bars:
    """A bar for all, and a line for each worker under it."""

    def __init__(self, tqdm: Any, work: float) -> None:
        self._tqdm = tqdm
        layout = "{desc} {percentage:3.0f}% |{bar}| {elapsed} < {remaining}"
        self._all = tqdm(total=work, bar_format=layout, dynamic_ncols=True, file=sys.stderr)
        self._lines: dict[Hashable, Any] = {}

    @classmethod
    def on_a_terminal(cls, work: float) -> _Bars | None:
        """Bars, where they can be shown."""
        try:
            if sys.stderr is None or not sys.stderr.isatty():
                return None
            return cls(importlib.import_module("tqdm").tqdm, work)
        except (ValueError, ImportError):  # a closed stream; no tqdm
            return None

    def advance(self, work: float, text: str) -> None:
        self._all.set_description_str(text, refresh=False)
        self._all.update(work)

    def show(self, worker: Hashable, text: str) -> None:
        if worker not in self._lines:
            place = len(self._lines) + 1
            self._lines[worker] = self._tqdm(total=0, position=place, bar_format="{desc}", file=sys.stderr, leave=False)
        self._lines[worker].set_description_str(f"  {text}")

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """While something else is written."""
        with self._tqdm.external_write_mode(file=sys.stderr):
            yield

    def close(self) -> None:
        for bar in [*self._lines.values(), self._all]:
            bar.close()
