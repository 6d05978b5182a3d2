"""Workers as processes of this machine, one for each card, or as many as are asked for on a CPU.

Each sees its own card alone, so settings, and what videos tell of them, are those of a run by itself. A worker ends
when the process that started it has ended, however that came. Knows nothing of which task is whose.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from ..errors import InputError
from .dispatch import Ended, Free, Happening, Lost, Told
from .manifest import refusal
from .worker import Order, Outcome, Worker

VISIBLE = "CUDA_VISIBLE_DEVICES"
CLOSES = 5.0  # seconds that a process is given to end


@dataclass(frozen=True)
class _Process:
    process: BaseProcess
    connection: Connection


def cards_for(device: str, workers: int | None) -> tuple[str | None, ...]:
    """What each worker is to see of this machine's cards; None: what there is.

    Args:
        device: as the setting.
        workers: how many are asked for; None: one for each card, and one without cards.

    Raises:
        InputError: more workers than cards.
    """
    if device == "cpu" or ":" in device:
        count = workers or 1
        if device != "cpu" and count > 1:
            raise InputError(f"--workers: {count} found, but --device {device} is one card; leave --device out.")
        return (None,) * count
    import torch

    found = torch.cuda.device_count()
    if not found:
        return (None,) * (workers or 1)
    if workers is not None and workers > found:
        raise InputError(f"--workers: {workers} found, but PyTorch sees {found} card(s) here; one worker a card.")
    visible = [name for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    names = visible if len(visible) >= found else [str(number) for number in range(found)]
    return tuple(names[: workers or found])


class LocalCrew:
    """Processes of this machine.

    Args:
        cards: what each one sees, see ``cards_for``.
    """

    def __init__(self, cards: Sequence[str | None]) -> None:
        self._cards = tuple(cards)
        self._workers: dict[Hashable, _Process] = {}
        for number in range(len(self._cards)):
            self._start(number)

    def give(self, worker: Hashable, order: Order) -> None:
        try:
            self._workers[worker].connection.send(order)
        except OSError:  # it has just ended, which ``happenings`` tells
            pass

    def happenings(self) -> list[Happening]:
        waited = {each.connection: worker for worker, each in self._workers.items()}
        found: list[Happening] = []
        for ready in wait(list(waited)):
            worker = waited[ready]  # type: ignore[index]
            try:
                happening = self._workers[worker].connection.recv()
            except (EOFError, OSError):
                happening = Lost(worker, self._ending(worker))
                del self._workers[worker]
            found.append(happening)
        return found

    def replace(self, worker: Hashable) -> None:
        self._end([worker])
        self._start(worker)

    def close(self) -> None:
        self._end(list(self._workers))

    def _end(self, workers: Sequence[Hashable]) -> None:
        ending = [self._workers.pop(worker) for worker in workers if worker in self._workers]
        for each in ending:
            each.process.terminate()
        for each in ending:
            each.process.join(CLOSES)
            if each.process.is_alive():
                each.process.kill()
            each.connection.close()

    def _start(self, worker: Hashable) -> None:
        assert isinstance(worker, int)
        context, card = get_context("spawn"), self._cards[worker]
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, worker), daemon=True)
        before = os.environ.get(VISIBLE)
        try:
            if card is not None:
                os.environ[VISIBLE] = card
            process.start()
        finally:
            if card is not None:
                os.environ.pop(VISIBLE)
                os.environ |= {} if before is None else {VISIBLE: before}
        theirs.close()
        self._workers[worker] = _Process(process, ours)

    def _ending(self, worker: Hashable) -> str:
        process = self._workers[worker].process
        process.join(CLOSES)
        code = process.exitcode
        if code is not None and code < 0:
            return refusal(f"its worker was ended from outside ({signal.Signals(-code).name})")
        return refusal(f"its worker ended with exit code {code}")


def _work(connection: Connection, number: int) -> None:
    """What a process does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that started it is interrupted, and ends it
    _end_with_parent()
    if sys.stdout is not None:
        os.dup2(2, 1)  # results are for the one that started it
    worker = Worker(lambda news: connection.send(Told(number, news)))
    worker.begin()
    with contextlib.suppress(EOFError, ConnectionError):  # the one that started it has just ended
        connection.send(Free(number))
        while True:
            outcome: Outcome = worker.do(connection.recv())
            connection.send(Ended(number, outcome))
            if outcome.fault:
                return


def _end_with_parent() -> None:
    """End this process when the one that started it has ended."""
    parent = parent_process()
    assert parent is not None

    def wait_for_it() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_for_it, daemon=True).start()
