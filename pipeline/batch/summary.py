"""What a batch would take, summed up: hours of video and of work, gigabytes on the disk and on a card. Makes nothing.

Hours of work follow from what videos of this folder have taken, or else, for the real model, from what was measured on
an H200 (docs/performance.md).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..facts.model_sizes import WAN_14B
from ..facts.sizes import GIB
from ..media.audio import FPS
from ..planning.run_plan import ModelsPlan, RunPlan, plan_models, plan_run
from ..run.generator import memory_errors
from .finished import There, look
from .results import DONE, results_in
from .run import Batch
from .tasks import Checks, Models, Refused, Task, said

# Seconds of a pass on an H200 for a thousand tokens, and for their square (attention): fitted to 480x480, 640x640 and
# 960x960, where they are off by 1 %; and of all else in a window for a million pixels
LINEAR = {1: 0.0251, 2: 0.0424}  # by the bytes of a weight
SQUARE = 0.00139
REST = 2.4
BITS = 0.25  # of H.264 for a pixel of a frame, at crf 18; an estimate
SOUND = 16_000  # bytes a second


@dataclass(frozen=True)
class Planned:
    """A task, and what making it would be."""

    task: Task
    plan: RunPlan

    @property
    def pixels(self) -> int:
        """Of a frame."""
        return self.plan.size[0] * self.plan.size[1]

    @property
    def work(self) -> float:
        """How much it is, beside others."""
        return float(self.plan.forwards * self.plan.tokens)

    @property
    def seconds_on_an_h200(self) -> float | None:
        """As it was measured; None for another model than the real one."""
        weights = self.plan.models.weights
        if weights.config.dim != WAN_14B.dim:
            return None
        thousands = self.plan.tokens / 1000
        size = weights.size
        a_pass = LINEAR[1 if size.block_bytes < 1.5 * size.block_parameters else 2] * thousands + SQUARE * thousands**2
        return self.plan.forwards * a_pass + len(self.plan.spans) * REST * self.pixels / 1e6

    @property
    def bytes(self) -> float:
        """Of the finished video."""
        return self.plan.frames * (self.pixels * BITS / 8 + SOUND / FPS)


def summary(batch: Batch) -> tuple[str, int]:
    """The sums in lines of text, and how many jobs would fail.

    Raises:
        InputError: nothing can be made at all; see ``batch.run.make``.
    """
    found = batch.lines()
    checks = Checks()
    checks.models([each for each in found if isinstance(each, Task)])
    models: dict[Models, ModelsPlan] = {}
    there: list[Task] = []
    planned: list[Planned] = []
    refused: list[Refused] = []
    for each in found:
        try:
            if isinstance(each, Task):
                if look(each, batch.overwrite) is There.DONE:
                    there.append(each)
                    continue
                each = checks.check(each)
            if isinstance(each, Task):
                planned.append(_planned(each, models))
            else:
                refused.append(each)
        except Exception as error:
            refused.append(Refused(each.id, each.place, *said(error)))
    lines = [
        ("jobs", f"{len(found)}: {len(planned)} to make, {len(there)} there already, {len(refused)} refused"),
        *(_sums(planned, there, batch) if planned else []),
        *(("refused", f"{each.id}: {each.sentence}") for each in refused),
    ]
    return "\n".join(f"{name:<10}{text}" for name, text in lines), len(refused)


def _planned(task: Task, models: dict[Models, ModelsPlan]) -> Planned:
    with memory_errors():
        if task.models not in models:
            models[task.models] = plan_models(task.settings)
        return Planned(task, plan_run(models[task.models], task.settings, task.job))


def _sums(planned: Sequence[Planned], there: Sequence[Task], batch: Batch) -> list[tuple[str, str]]:
    frames = sum(each.plan.frames for each in planned)
    windows = sum(len(each.plan.spans) for each in planned)
    size = sum(each.bytes for each in planned)
    most = max(each.plan.memory.peak for each in planned)
    return [
        ("video", f"{frames / FPS / 3600:.3g} hours, {frames} frames in {windows} windows"),
        (
            "work",
            f"{sum(each.plan.forwards for each in planned)} passes through the transformer; {_hours(planned, batch)}",
        ),
        ("disk", f"about {size / 1e9:.3g} GB of videos; {_free(batch.out) / 1e9:.0f} GB are free"),
        ("memory", f"about {most / GIB:.1f} GiB on the device of each worker"),
    ]


def _hours(planned: Sequence[Planned], batch: Batch) -> str:
    """The hours of work, and how that is known."""
    measured = _measured(batch)
    if measured is not None:
        hours = measured * sum(each.task.work for each in planned) / 3600
        return f"about {hours:.3g} hours of one worker, by the videos that were made here"
    seconds = [each.seconds_on_an_h200 for each in planned]
    if None in seconds:
        return "how many hours that is will be known when a video was made here"
    hours = sum(each for each in seconds if each is not None) / 3600
    return f"about {hours:.3g} hours of one H200, as measured"


def _measured(batch: Batch) -> float | None:
    """Seconds for a task's unit of work, by the results of this folder."""
    works = {each.id: each for each in batch.lines() if isinstance(each, Task)}
    seconds = work = 0.0
    for result in results_in(batch.results):
        if result.state == DONE and result.seconds and result.id in works:
            measured = Checks().check(works[result.id])
            if isinstance(measured, Task):
                seconds, work = seconds + result.seconds, work + measured.work
    return seconds / work if work else None


def _free(folder: Path) -> int:
    place = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
    return shutil.disk_usage(place).free
