"""``generate`` on several cards: starting the processes, and what each of them does.

The first process prints and writes; one that fails says why and ends at once, and what started them ends the others.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from ..errors import InputError
from ..job.job import Job
from ..job.output import partial_path, path_to_write, windows_done
from ..parallel import launch
from ..parallel.cards import Cards, join, leave
from ..run.generator import generate
from ..run.progress import Progress
from ..settings.definition import Settings
from ..settings.flags import to_argv
from .console import ENDINGS, ended, say

FAULT = 1
WAITS = 5.0  # seconds after a fault, which mostly follows from another process's end: that one tells


def start(settings: Settings) -> None:
    """Make a video in processes of their own.

    Args:
        settings: resolved; ``save_file`` is the path to write.

    Raises:
        InputError: a process failed; says which windows there are.
    """
    path = path_to_write(settings)
    before = windows_done(path) or 0
    try:
        launch.start(to_argv(settings.replace(gpus=1)), settings.gpus)
    except InputError as error:
        windows = windows_done(path) or 0
        if windows <= before or "--resume" in str(error):
            raise
        raise InputError(
            f"{error} The first {windows} windows are in {partial_path(path)}; --resume goes on after them, on any "
            "number of cards."
        ) from error


def make(settings: Settings, job: Job, progress: Progress) -> NoReturn:
    """Make a video together with the other processes, and end this one."""
    work(settings.device, lambda cards: str(generate(cards.agreed(lambda: settings), job, progress, cards)))


def work(device: str, do: Callable[[Cards], str]) -> NoReturn:
    """Do something together with the other processes, say the first one's result, and end this one."""
    code = FAULT
    try:
        cards = join(device)
        result = do(cards)
        cards.wait()
        if cards.first:
            say(result)
        code = 0
    except ENDINGS as error:
        code = ended(error)
    except Exception:
        time.sleep(WAITS)
        traceback.print_exc()
    leave(code)
