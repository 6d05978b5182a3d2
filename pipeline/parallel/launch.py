"""Starting the processes of a run on several cards, one each, and saying how they ended.

PyTorch's own launcher does it, the one behind torchrun, so that the processes find the same surroundings either way.
Nothing heavy is imported before it is needed; knows nothing about videos.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import uuid
from pathlib import Path

from ..errors import InputError

SCRIPT = "generate_infinitetalk.py"
INTERVAL = 0.1  # seconds between looks at the processes
OURS = "INFINITETALK_STARTED"  # that this program started the processes itself, and tells how they end
THREADS = "OMP_NUM_THREADS"
REFUSED = 2  # the exit code of a process that has said why, in its report


def processes() -> int:
    """How many processes were started together with this one, itself among them."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process among them."""
    return int(os.environ.get("RANK", "0"))


def start(words: list[str], count: int) -> None:
    """Run this program with these words in so many processes; returns when all have ended well.

    One that ends otherwise ends the others.

    Raises:
        InputError: one did not end well: its sentence, or what ended it.
        KeyboardInterrupt: this process was interrupted.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    for name in ("torch.distributed", "torch.distributed.elastic", "torch.distributed.launcher"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what failed is told below
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(uuid.uuid4()),
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        local_addr="127.0.0.1",
        max_restarts=0,
        monitor_interval=INTERVAL,
    )
    # on a CPU their number decides last bits, so each process computes with as many threads as one alone would
    before = {name: os.environ.get(name) for name in (OURS, THREADS)}
    os.environ |= {OURS: "1", THREADS: str(torch.get_num_threads())}
    try:
        elastic_launch(config, sys.executable)(*_program(), *words)
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode == REFUSED:
            raise InputError(_sentence(failure.message)) from error
        raise InputError(ending(number, count, failure.exitcode)) from error
    except SignalException as error:
        raise KeyboardInterrupt from error
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}


def _sentence(message: str | dict[str, str]) -> str:
    """What a process's report says."""
    return message["message"] if isinstance(message, dict) else message


def _program() -> list[str]:
    """What Python is called with to run this program once more."""
    script = Path(__file__).resolve().parents[2] / SCRIPT
    return ["-u", str(script)] if script.exists() else ["-u", "-m", "infinitetalk"]


def ending(number: int, count: int, code: int) -> str:
    """What to say where the process of card ``number``, from 0, has ended with this code, negative for a signal."""
    process = f"The process of card {number + 1} of {count}"
    if code >= 0:
        return f"{process} ended with exit code {code}, so the others were ended too."
    return f"{process} was ended from outside ({signal.Signals(-code).name}), so the others were ended too."
