"""Who makes what next: tasks to workers that are free, once more where one was lost, until all are made or have failed.

Each free worker takes the next task, so nobody waits while there is one. Workers keep to models that they have loaded,
and the first one with new models encodes the prompts of all their tasks before the others begin. Knows workers as a
``Crew``, whether they are processes of this machine or of a cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ..errors import InputError
from .manifest import refusal
from .results import FAILED, Result
from .tasks import Models, Task
from .worker import Make, News, Order, Outcome, Prompts

ATTEMPTS = 3  # at a task whose worker was lost
STARTS = 3  # of workers that end before they have done anything, one after the other


@dataclass(frozen=True)
class Free:
    """A worker has begun, and is free."""

    worker: Hashable


@dataclass(frozen=True)
class Told:
    """What a worker says of its task."""

    worker: Hashable
    news: News


@dataclass(frozen=True)
class Ended:
    """A worker has done its order, and is free."""

    worker: Hashable
    outcome: Outcome


@dataclass(frozen=True)
class Lost:
    """A worker has ended; ``reason`` is a clause."""

    worker: Hashable
    reason: str


Happening = Free | Told | Ended | Lost


class Crew(Protocol):
    """Workers, each with a name of its own."""

    def give(self, worker: Hashable, order: Order) -> None:
        """Have a free worker do this."""

    def happenings(self) -> Sequence[Happening]:
        """What has happened; waits until something has."""

    def replace(self, worker: Hashable) -> None:
        """Begin another in the place of one that was lost."""

    def close(self) -> None:
        """End all."""


class Listener(Protocol):
    """Hears how a batch goes on."""

    def begun(self, worker: Hashable, task: Task) -> None: ...

    def told(self, worker: Hashable, news: News) -> None: ...

    def ended(self, task: Task, outcome: Outcome) -> None: ...

    def lost(self, task: Task | None, reason: str, again: bool) -> None: ...


class Dispatch:
    """Hands tasks to workers.

    Args:
        tasks: in the order in which they are begun.
        overwrite: whether other videos of their names may be replaced.
        listener: hears what happens to each.
    """

    def __init__(self, tasks: Sequence[Task], overwrite: bool, listener: Listener) -> None:
        self._waiting = list(tasks)
        self._overwrite = overwrite
        self._listener = listener
        self._doing: dict[Hashable, Order] = {}
        self._free: list[Hashable] = []
        self._loaded: dict[Hashable, Models] = {}
        self._told_prompts: set[tuple[Hashable, Models]] = set()
        self._encoded: set[Models] = set()
        self._attempts: Counter[str] = Counter()
        self._prompts: dict[Models, tuple[str, ...]] = {}
        for task in tasks:
            have = self._prompts.get(task.models, ())
            self._prompts[task.models] = tuple(dict.fromkeys((*have, *task.prompts)))
        self._early_ends = 0

    def run(self, crew: Crew) -> None:
        """Do everything.

        Raises:
            InputError: workers cannot begin.
        """
        while self._waiting or self._doing:
            for happening in crew.happenings():
                self._take(crew, happening)
            self._give(crew)

    def _take(self, crew: Crew, happening: Happening) -> None:
        match happening:
            case Free(worker):
                self._free.append(worker)
            case Told(worker, news):
                self._listener.told(worker, news)
            case Ended(worker, outcome):
                self._early_ends = 0
                self._ended(worker, self._doing.pop(worker), outcome)
                if not outcome.fault:
                    self._free.append(worker)
                elif self._waiting:  # what it has on its card may be spoilt
                    self._forget(worker)
                    crew.replace(worker)
            case Lost(worker, reason):
                self._lost(crew, worker, reason)

    def _ended(self, worker: Hashable, order: Order, outcome: Outcome) -> None:
        if isinstance(order, Prompts):
            self._encoded.add(order.task.models)
            self._told_prompts.add((worker, order.task.models))
        else:
            self._listener.ended(order.task, outcome)

    def _lost(self, crew: Crew, worker: Hashable, reason: str) -> None:
        order = self._doing.pop(worker, None)
        self._forget(worker)
        if order is None:
            self._early_ends += 1
        elif isinstance(order, Prompts):
            self._early_ends += 1
            self._told_prompts.add((worker, order.task.models))  # what takes its place meets them one by one
            self._encoded.add(order.task.models)
        else:
            self._once_more(order.task, reason)
        if self._early_ends >= STARTS:
            raise InputError(f"workers end before they have made anything: {reason}.")
        if not isinstance(order, Make):
            self._listener.lost(None, reason, True)
        if self._waiting:
            crew.replace(worker)

    def _forget(self, worker: Hashable) -> None:
        self._free = [each for each in self._free if each != worker]
        self._loaded.pop(worker, None)
        self._told_prompts = {each for each in self._told_prompts if each[0] != worker}

    def _once_more(self, task: Task, reason: str) -> None:
        self._attempts[task.id] += 1
        again = self._attempts[task.id] < ATTEMPTS
        self._listener.lost(task, reason, again)
        if again:
            self._waiting.insert(0, task)
        else:
            sentence = refusal(f"{reason}, {ATTEMPTS} times; the windows that were made are kept for the same command.")
            self._listener.ended(task, Outcome(Result(task.id, FAILED, error=sentence)))

    def _give(self, crew: Crew) -> None:
        """Orders for those that are free; one may have to wait for prompts that another encodes."""
        for worker in list(self._free):
            task = self._next(worker)
            if task is None:
                continue
            order: Order
            if (worker, task.models) in self._told_prompts:
                order = Make(task, self._overwrite)
            elif task.models in self._encoded or not self._being_encoded(task.models):
                order = Prompts(task, self._prompts[task.models])
            else:
                continue
            self._free.remove(worker)
            self._doing[worker], self._loaded[worker] = order, task.models
            if isinstance(order, Make):
                self._waiting.remove(task)
                self._listener.begun(worker, task)
            crew.give(worker, order)

    def _next(self, worker: Hashable) -> Task | None:
        """The first one for the models that this worker has, else for those that fewest have."""
        own = self._loaded.get(worker)
        others = Counter(models for each, models in self._loaded.items() if each != worker)
        return min(self._waiting, key=lambda task: (task.models != own, others[task.models]), default=None)

    def _being_encoded(self, models: Models) -> bool:
        return any(isinstance(order, Prompts) and order.task.models == models for order in self._doing.values())
