"""Several cards for a program that goes on living, as ComfyUI's server does: all their work is done by helpers.

A helper is a process for one card (``helping``), which keeps its models between videos. The program itself joins no
messages between cards, so that one that is killed or hangs ends the helpers and never the program.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch

from ..errors import InputError
from ..job.job import Job
from ..parallel.cards import planned
from ..parallel.launch import ending
from ..settings.definition import Settings
from ..settings.roles import Json
from .generator import Generator
from .helping import DESCRIPTOR, DEVICE
from .orders import Failed, Message, Order, Ready, Told, sendable
from .progress import Loading, Progress, Working, no_progress

LOOKS = 0.1  # seconds between looks whether the run was cancelled
DIES = 5.0  # seconds that a process may take to end when nothing comes from it any more
_BOOT = """
import importlib, importlib.util, sys
name, root = sys.argv[1:]
spec = importlib.util.spec_from_file_location(name, f"{root}/__init__.py", submodule_search_locations=[root])
sys.modules[name] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules[name])
importlib.import_module(f"{name}.pipeline.run.helping").main()
"""


@dataclass(frozen=True)
class Helper:
    """The process of card ``number``, from 0."""

    number: int
    process: subprocess.Popen
    connection: Connection


class SeveralCards:
    """Makes videos as a ``Generator`` does, on so many cards.

    Args:
        settings: see ``Generator``; ``gpus`` says how many cards.
        make_room: called with the bytes that are wanted on each card before helpers take them.

    Attributes:
        progress: hears what the helpers tell, and ``Working`` again and again; if it raises, they are ended.

    Raises:
        InputError: see ``Generator``; or this system has no such processes.
    """

    def __init__(self, settings: Settings, make_room: Callable[[int], None] = lambda wanted: None) -> None:
        if os.name != "posix":
            raise InputError(f"--gpus: {settings.gpus} found, but several cards need Linux; choose 1.")
        self._generator = Generator(settings, cards=planned(settings.gpus))
        self._make_room = make_room
        self._helpers: list[Helper] = []
        self.progress: Progress = no_progress

    @property
    def pids(self) -> list[int]:
        """Of the helpers that were started."""
        return [helper.process.pid for helper in self._helpers]

    def identity(self, job: Job, settings: Settings | None = None) -> dict[str, Json]:
        """See ``Generator.identity``."""
        return self._generator.identity(job, settings)

    def save(
        self, job: Job, path: Path, settings: Settings | None = None, tags: Mapping[str, str] | None = None
    ) -> Path:
        """See ``Generator.save``. Where this raises anything, no helper is left."""
        prepared = self._generator.prepare(job, path, settings)
        self._make_room(prepared.plan.wanted)
        if any(helper.process.poll() is not None for helper in self._helpers):
            self.close()  # one was ended meanwhile
        try:
            if not self._helpers:
                self._start()
                self._hear()
            self._order(job, path, settings or self._generator.settings, tags)
            self._hear()
        except BaseException:
            self.close()
            raise
        return path

    def release(self) -> None:
        """Nothing: helpers give their cards back when a video is done."""

    def close(self) -> None:
        """End the helpers, and with them what they have loaded."""
        helpers, self._helpers = self._helpers, []
        _end(helpers)

    def _start(self) -> None:
        self.progress(Loading(f"starting {self._generator.settings.gpus} processes"))
        count, package = self._generator.settings.gpus, (__package__ or "").rsplit(".", 2)[0]
        shared = {
            "WORLD_SIZE": str(count),
            "LOCAL_WORLD_SIZE": str(count),
            "OMP_NUM_THREADS": str(torch.get_num_threads()),
        }
        shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), DEVICE: self._device}
        for number in range(count):
            ours, theirs = Pipe()
            own = {"RANK": str(number), "LOCAL_RANK": str(number), DESCRIPTOR: str(theirs.fileno())}
            process = subprocess.Popen(
                [sys.executable, "-u", "-c", _BOOT, package, str(Path(__file__).parents[2])],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env={**os.environ, **shared, **own},
            )
            theirs.close()
            self._helpers.append(Helper(number, process, ours))
        weakref.finalize(self, _end, self._helpers)

    @property
    def _device(self) -> str:
        return torch.device(self._generator.settings.device).type

    def _order(self, job: Job, path: Path, settings: Settings, tags: Mapping[str, str] | None) -> None:
        models, settings = (each.replace(device=self._device, gpus=1) for each in (self._generator.settings, settings))
        order = pickle.dumps(Order(models, settings, sendable(job), path, tags))
        for helper in self._helpers:
            helper.connection.send_bytes(order)

    def _hear(self) -> None:
        """Tell what the helpers tell, until all are ready.

        Raises:
            InputError: one has failed, or has ended.
        """
        waiting = list(self._helpers)
        while waiting:
            self.progress(Working())
            spoken = wait([helper.connection for helper in waiting], LOOKS)
            for helper in [helper for helper in waiting if helper.connection in spoken]:
                match self._message(helper):
                    case Ready():
                        waiting.remove(helper)
                    case Told(event):
                        self.progress(event)
                    case Failed(sentence):
                        raise InputError(sentence)

    def _message(self, helper: Helper) -> Message:
        try:
            return pickle.loads(helper.connection.recv_bytes())
        except (EOFError, ConnectionError) as error:
            try:
                code = helper.process.wait(DIES)
            except subprocess.TimeoutExpired:
                code = -9
            raise InputError(ending(helper.number, len(self._helpers), code)) from error


def _end(helpers: list[Helper]) -> None:
    """End them at once: whatever they write survives that."""
    for helper in helpers:
        helper.process.kill()
    for helper in helpers:
        helper.process.wait()
        helper.connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
