"""A batch from its manifest to results.jsonl: what is there already, what is refused, and the rest by workers."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from ..errors import InputError
from ..settings.config import Config
from ..settings.flags import settings_from
from ..settings.validation import validate
from .dispatch import Crew, Dispatch
from .finished import There, frames_in, look
from .manifest import read_manifest
from .results import DONE, FAILED, Result, Results
from .tasks import Checks, Refused, Task, in_order, said, shard, task_of
from .worker import News, Outcome

ARRAY, STEP = "SLURM_ARRAY_TASK_", "SLURM_STEP_"


@dataclass(frozen=True)
class Batch:
    """What is to be made.

    Attributes:
        flags: settings that were given for all lines, by name.
        out: folder of the videos.
        shard: which part of the lines, (number from 0, of how many).
        overwrite: whether other videos of the same names may be replaced.
    """

    manifest: Path
    out: Path
    flags: argparse.Namespace
    config: Config
    shard: tuple[int, int] = (0, 1)
    overwrite: bool = False

    @property
    def results(self) -> Path:
        """The file that says what became of each job."""
        index, count = self.shard
        return self.out / ("results.jsonl" if count == 1 else f"results-{index + 1}-of-{count}.jsonl")

    def lines(self) -> list[Task | Refused]:
        """The jobs of this shard, files of which are not looked at yet.

        Raises:
            InputError: the manifest cannot be read, or the flags are not right, whatever a line says.
        """
        lines = list(shard(read_manifest(self.manifest), *self.shard))
        settings = settings_from(self.flags, self.config)
        found = [task_of(line, self.flags, self.config, self.out) for line in lines]
        refusals = {each.sentence for each in found if isinstance(each, Refused)}
        if len(refusals) == 1 and not any(isinstance(each, Task) for each in found):
            validate(settings)  # where all fail for the same reason, it may be that of a flag
        return found


@dataclass(frozen=True)
class Counts:
    """How a batch ended: videos that were made, that were there already, and jobs that failed."""

    made: int = 0
    there: int = 0
    failed: int = 0


class Watcher(Protocol):
    """Sees a batch go on, for people."""

    def planned(self, tasks: list[Task], counts: Counts, jobs: int) -> None: ...

    def begun(self, worker: Hashable, task: Task) -> None: ...

    def told(self, worker: Hashable, news: News) -> None: ...

    def ended(self, id: str, outcome: Outcome) -> None: ...

    def lost(self, id: str | None, reason: str, again: bool) -> None: ...


class _Recorder:
    """Writes what becomes of jobs, counts it, and passes it on."""

    def __init__(self, results: Results, watcher: Watcher) -> None:
        self.counts = Counts()
        self._results = results
        self._watcher = watcher

    def begun(self, worker: Hashable, task: Task) -> None:
        self._watcher.begun(worker, task)

    def told(self, worker: Hashable, news: News) -> None:
        self._watcher.told(worker, news)

    def lost(self, task: Task | None, reason: str, again: bool) -> None:
        self._watcher.lost(None if task is None else task.id, reason, again)

    def ended(self, task: Task, outcome: Outcome) -> None:
        self.take(task.id, outcome)

    def take(self, id: str, outcome: Outcome) -> None:
        """One more job has come to its end."""
        result, counts = outcome.result, self.counts
        assert result is not None
        earlier = self._results.held.get(id)
        if outcome.there and earlier is not None and earlier.state == DONE:
            result = earlier
        self._results.add(result)
        if result.state == FAILED:
            self.counts = replace(counts, failed=counts.failed + 1)
        elif outcome.there:
            self.counts = replace(counts, there=counts.there + 1)
        else:
            self.counts = replace(counts, made=counts.made + 1)
        self._watcher.ended(id, outcome)


def make(batch: Batch, crew: Callable[[], Crew], watcher: Watcher) -> Counts:
    """Make all videos of a batch that are not there yet.

    Args:
        crew: starts the workers; called once the manifest is known to be readable.

    Raises:
        InputError: nothing can be made at all: the manifest, the models of all jobs, or the folder is not right.
    """
    found = batch.lines()
    checks = Checks()
    checks.models([each for each in found if isinstance(each, Task)])
    with Results(batch.results) as results:
        ids = {each.id for each in found}
        results.compact(lambda result: result.state == DONE and result.id in ids and _is_there(result))
        recorder = _Recorder(results, watcher)
        workers: Crew | None = None
        try:
            if any(isinstance(each, Task) and not os.path.lexists(each.path) for each in found):
                workers = crew()  # which takes a while, in which the tasks are looked at
            tasks = in_order([task for each in found if (task := _open(each, checks, batch, recorder)) is not None])
            watcher.planned(tasks, recorder.counts, len(found))
            if tasks:
                workers = workers or crew()
                Dispatch(tasks, batch.overwrite, recorder).run(workers)
        finally:
            if workers is not None:
                workers.close()
        results.compact()
    return recorder.counts


def _is_there(result: Result) -> bool:
    return result.path is not None and os.path.lexists(result.path)


def _open(each: Task | Refused, checks: Checks, batch: Batch, recorder: _Recorder) -> Task | None:
    """The task if it is left to do; what has come to its end already is recorded."""
    if isinstance(each, Task):
        try:
            if look(each, batch.overwrite) is There.DONE:
                result = Result(each.id, DONE, None, frames_in(each.path), str(each.path))
                recorder.take(each.id, Outcome(result, there=True))
                return None
            each = checks.check(each)
        except Exception as error:
            each = Refused(each.id, each.place, *said(error))
    if isinstance(each, Task):
        return each
    recorder.take(each.id, Outcome(Result(each.id, FAILED, error=each.sentence), fault=each.fault))
    return None


def shard_of(word: str | None, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Which part of the jobs this is: ``i/n``, i from 1; left out: SLURM's array and step, else all.

    Returns:
        (number from 0, of how many).

    Raises:
        InputError: it is none, or SLURM's numbers are not those of a whole array.
    """
    if word is not None:
        index, slash, count = word.partition("/")
        if not (slash and index.isascii() and index.isdigit() and count.isascii() and count.isdigit()):
            raise InputError(f"--shard: {word!r} found, I/N expected, such as 2/8.")
        if not 1 <= int(index) <= int(count):
            raise InputError(f"--shard: {word!r} found, a number from 1 to {count} of {count} expected.")
        return int(index) - 1, int(count)
    number, parts = _of_array(environment)
    tasks = _number(environment, f"{STEP}NUM_TASKS")  # of srun; a script that sbatch starts has none
    rank = _number(environment, "SLURM_PROCID")
    if tasks is not None and rank is not None and tasks > 1:
        number, parts = number * tasks + rank, parts * tasks
    return number, parts


def _of_array(environment: Mapping[str, str]) -> tuple[int, int]:
    task, first, last, count = (_number(environment, f"{ARRAY}{name}") for name in ("ID", "MIN", "MAX", "COUNT"))
    if task is None or first is None or last is None or not count:
        return 0, 1
    step = _number(environment, f"{ARRAY}STEP") or 1
    index, rest = divmod(task - first, step)
    if rest or (last - first) // step + 1 != count:
        raise InputError(
            f"--shard: the array has tasks left out ({count} from {first} to {last}), so which part this is cannot be "
            "told; give --shard I/N."
        )
    return index, count


def _number(environment: Mapping[str, str], name: str) -> int | None:
    text = environment.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else None
