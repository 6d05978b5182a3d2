"""Workers as actors of a Ray cluster, one for each card of it; on nodes without cards, one for each node.

A task whose node was lost is done by another worker, which goes on after the last window where the folder of the videos
is shared. Threads, cache and language are those of the process that hands out the tasks, so that results are the same.
Ray is imported when a crew is made.
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import InputError, in_short
from .dispatch import Ended, Free, Happening, Lost, Told
from .manifest import refusal
from .results import FAILED
from .worker import Order, Outcome

PACKAGE = __name__.split(".pipeline.")[0]
ROOT = Path(__file__).resolve().parents[2]
HANDED_ON = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_DYNAMIC", "INFINITETALK_CACHE", "INFINITETALK_LANG")
LOOKS = 1.0  # seconds between looks at what workers tell
APPEARS = 10.0  # seconds that a network file system may take to show a file


def surroundings() -> dict[str, Any]:
    """What a worker takes over from this process: where the program lies and under which name it is imported, the
    folder that relative paths start from, and variables with their values; None: not set."""
    environment = {name: os.environ.get(name) for name in HANDED_ON}
    return {"package": PACKAGE, "root": str(ROOT), "folder": str(Path.cwd()), "environment": environment}


class RayCrew:
    """Actors of a cluster.

    Args:
        address: of the cluster; auto: the one that runs here; local: one that is started for this.
        workers: how many; None: as many as there are cards, or nodes.
        device: as the setting; cpu: no worker asks for a card.

    Raises:
        InputError: Ray is not installed, or there is no cluster.
    """

    def __init__(self, address: str, workers: int | None, device: str) -> None:
        if ":" in device:
            raise InputError(f"--device: {device} found, but workers of a cluster get a card each; leave it out.")
        self._actors: dict[Hashable, Any] = {}
        self._awaited: dict[Any, Hashable] = {}
        self._ray, self._ours = _connected(address)
        cards = 0 if device == "cpu" else int(self._ray.cluster_resources().get("GPU", 0))
        nodes = sum(node["Alive"] for node in self._ray.nodes())
        if cards and workers is not None and workers > cards:
            self.close()
            raise InputError(f"--workers: {workers} found, but the cluster has {cards} card(s); one worker a card.")
        share = {"num_gpus": 1, "num_cpus": 0} if cards else {"num_cpus": 1}
        self._news = _queue_here(self._ray)
        self._actor = self._ray.remote(max_restarts=0, scheduling_strategy="SPREAD", **share)(_actor())
        for number in range(workers or cards or nodes):
            self._start(number)

    def give(self, worker: Hashable, order: Order) -> None:
        self._awaited[self._actors[worker].do.remote(order)] = worker

    def happenings(self) -> list[Happening]:
        found: list[Happening] = []
        while not found:
            ready, _ = self._ray.wait(list(self._awaited), timeout=LOOKS)
            found = self._told()
            for reference in ready:
                worker = self._awaited.pop(reference)
                try:
                    outcome = self._ray.get(reference)
                except self._ray.exceptions.RayError as error:
                    found.append(Lost(worker, refusal(f"its worker in the cluster was lost ({in_short(error)})")))
                else:
                    found.append(Free(worker) if outcome is None else Ended(worker, _seen_here(outcome)))
        return found

    def replace(self, worker: Hashable) -> None:
        self._end(worker)
        self._start(worker)

    def close(self) -> None:
        for worker in list(self._actors):
            self._end(worker)
        self._awaited.clear()
        if self._ours:
            self._ray.shutdown()

    def _start(self, worker: Hashable) -> None:
        actor = self._actor.remote(surroundings(), worker, self._news)
        self._actors[worker] = actor
        self._awaited[actor.ready.remote()] = worker

    def _end(self, worker: Hashable) -> None:
        self._awaited = {each: whose for each, whose in self._awaited.items() if whose != worker}
        self._ray.kill(self._actors.pop(worker), no_restart=True)

    def _told(self) -> list[Happening]:
        try:
            return [Told(worker, news) for worker, news in self._news.get_nowait_batch(self._news.size())]
        except queue.Empty:
            return []


def _connected(address: str) -> tuple[Any, bool]:
    """Ray, and whether this connected it.

    Raises:
        InputError: it is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError('--ray needs Ray: pip install "infinitetalk[ray]".') from error
    if ray.is_initialized():
        return ray, False
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, ValueError, RuntimeError) as error:
        raise InputError(
            f"--ray: there is no cluster at {address!r} ({in_short(error)}); begin one with ray start --head, or give "
            "its address, or local."
        ) from error
    return ray, True


def _queue_here(ray: Any) -> Any:
    """What workers tell, kept on this node, which is the one that is not lost."""
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})


def _actor() -> type:
    """The class of the actors. It is defined here so that Ray sends its code: the program is found by it alone."""

    class TalkingVideos:
        def __init__(self, surroundings: dict[str, Any], number: Hashable, news: Any) -> None:
            import importlib
            import importlib.util
            import os
            import sys
            from pathlib import Path

            name, root = surroundings["package"], Path(surroundings["root"])
            for variable, value in surroundings["environment"].items():
                os.environ.pop(variable, None)
                os.environ.update({} if value is None else {variable: value})
            if not Path(surroundings["folder"]).is_dir():
                raise FileNotFoundError(
                    f"{surroundings['folder']} is not there; begin in a folder that all nodes share"
                )
            os.chdir(surroundings["folder"])
            if name not in sys.modules and (root / "__init__.py").is_file():
                found = importlib.util.spec_from_file_location(
                    name, root / "__init__.py", submodule_search_locations=[str(root)]
                )
                assert found is not None and found.loader is not None
                sys.modules[name] = importlib.util.module_from_spec(found)
                found.loader.exec_module(sys.modules[name])
            worker = importlib.import_module(f"{name}.pipeline.batch.worker")
            self._worker = worker.Worker(lambda told: news.put((number, told)))

        def ready(self) -> None:
            """Comes back when the worker has begun."""
            self._worker.begin()

        def do(self, order: Order) -> Outcome:
            """See ``Worker.do``."""
            return self._worker.do(order)

    return TalkingVideos


def _seen_here(outcome: Outcome) -> Outcome:
    """The same; a video that is not to be seen here has failed: it lies where nobody looks for it."""
    result = outcome.result
    if result is None or result.path is None:
        return outcome
    until = time.monotonic() + APPEARS
    while not Path(result.path).exists():
        if time.monotonic() > until:
            sentence = refusal(f"{result.path} was made, but on another machine; give an --out that all nodes share.")
            return replace(outcome, result=replace(result, state=FAILED, path=None, error=sentence))
        time.sleep(LOOKS / 4)
        with contextlib.suppress(OSError):
            list(Path(result.path).parent.iterdir())  # a network file system looks anew
    return outcome
