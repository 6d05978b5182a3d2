"""From the lines of a manifest to videos that can be made: settings, job, file, and how much work each is.

Everything that can be refused without PyTorch is refused here, for each job by itself. What is wrong with the models
that all jobs share is said once, for the batch.
"""

from __future__ import annotations

import argparse
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from ..checkpoints.defaults import with_default_paths
from ..errors import InputError, in_short
from ..facts.buckets import target_size
from ..job.container import open_container
from ..job.job import Job, load_job
from ..job.output import check_output, check_unfinished
from ..media.audio import FPS, check_audio
from ..media.reference import open_reference
from ..planning.checked import check_files, check_sampling
from ..planning.windows import window_plan
from ..settings.config import Config
from ..settings.definition import Settings, names_with
from ..settings.flags import settings_from
from ..settings.presets import layered
from ..settings.roles import MODELS, RUN
from ..settings.validation import resolve, steps_taken
from .manifest import Line, refusal

LONGEST = 24 * 3600.0  # seconds; a header that tells more lies
Models = tuple  # what chooses models, kept and run in the same way


@dataclass(frozen=True)
class Task:
    """A video to make.

    Attributes:
        settings: resolved; ``save_file`` is where it goes.
        any_seed: whether its seed may be any.
        windows: as far as the sound's header tells; 0 before that is looked at.
        pixels: of a frame.
        work: how much it is, beside others.
    """

    id: str
    place: str
    settings: Settings
    job: Job
    any_seed: bool = False
    windows: int = 0
    pixels: int = 0
    work: float = 0.0

    @property
    def path(self) -> Path:
        """Of the finished video."""
        assert self.settings.save_file is not None
        return self.settings.save_file

    @property
    def models(self) -> Models:
        """Equal for tasks that one generator can make."""
        return tuple(getattr(self.settings, name) for name in names_with(MODELS))

    @property
    def prompts(self) -> tuple[str, ...]:
        """What is encoded for it."""
        guided = self.settings.sample_text_guide_scale != 1
        return (self.job.prompt, self.job.negative_prompt) if guided else (self.job.prompt,)


@dataclass(frozen=True)
class Refused:
    """A job that cannot be made, and the sentence that says why.

    Attributes:
        fault: the traceback, where it is a fault of the program.
    """

    id: str
    place: str
    sentence: str
    fault: str = ""


def said(error: Exception) -> tuple[str, str]:
    """What went wrong with a job, as a sentence; and the traceback, where it is a fault of the program."""
    if isinstance(error, OSError) and error.filename is not None:
        return refusal(f"{error.filename} cannot be opened ({error.strerror}); check the path, or give another."), ""
    if isinstance(error, InputError):
        return str(error), ""
    name = type(error).__name__
    sentence = refusal(f"a fault of the program ended it ({name}: {in_short(error)}); --log_file keeps more.")
    return sentence, "".join(traceback.format_exception(error))


def task_of(line: Line, flags: argparse.Namespace, config: Config, folder: Path) -> Task | Refused:
    """The task of a line; its values win over the flags, these over the preset. Opens no file of the job but a JSON.

    Args:
        folder: where videos go.
    """
    if line.refusal:
        return Refused(line.id, line.place, line.refusal)
    try:
        values = layered(vars(flags), line.values)
        settings = settings_from(argparse.Namespace(**values), config)
        of_the_run = {name: getattr(Settings, name) for name in names_with(RUN)}
        settings = settings.replace(**of_the_run, save_file=folder / f"{line.id}.mp4")
        any_seed = isinstance(settings.base_seed, int) and settings.base_seed < 0
        settings = with_default_paths(resolve(settings))
        return Task(line.id, line.place, settings, load_job(settings), any_seed)
    except Exception as error:  # one that nobody thought of costs no other job
        return Refused(line.id, line.place, *said(error))


class Checks:
    """Looks at tasks one after the other; at models that several share, once."""

    def __init__(self) -> None:
        self._models: dict[Models, InputError | None] = {}

    def models(self, tasks: Sequence[Task]) -> None:
        """Look at the models of all tasks.

        Raises:
            InputError: no task can be made for its models, and all for the same reason.
        """
        for task in tasks:
            if task.models not in self._models:
                self._models[task.models] = _refusal_of_models(task.settings)
        reasons = {str(error) if error else "" for error in self._models.values()}
        if len(reasons) == 1 and "" not in reasons:
            raise InputError(reasons.pop())

    def check(self, task: Task) -> Task | Refused:
        """The task with its size and its work, or why it cannot be made."""
        settings, job = task.settings, task.job
        try:
            refused = self._models.get(task.models)
            if refused is not None:
                raise refused
            check_output(task.path, True, job.files())
            check_unfinished(task.path, settings.replace(resume=True, overwrite=True), job.files())
            check_sampling(settings)
            return measured(task)
        except Exception as error:
            return Refused(task.id, task.place, *said(error))


def _refusal_of_models(settings: Settings) -> InputError | None:
    try:
        check_files(settings)
    except InputError as error:
        return error
    return None


def measured(task: Task) -> Task:
    """The task with its size and its work, by the headers of picture and sound.

    Raises:
        InputError: one cannot be used.
    """
    settings, job = task.settings, task.job
    assert isinstance(job.reference, Path)
    reference = open_reference(job.reference)
    sounds = [sound for sound in dict.fromkeys(job.sounds()) if isinstance(sound, Path)]
    for sound in sounds:
        check_audio(sound)
    lengths = [_seconds(sound) for sound in sounds]
    height, width = target_size(settings.size, reference.height, reference.width)
    frames = max(1, int((max(lengths) if job.arrangement == "para" else sum(lengths)) * FPS))
    spans = window_plan(frames, settings.frame_num, settings.motion_frame, settings.max_frame_num)
    passes = 1 + (settings.sample_text_guide_scale != 1) + (settings.sample_audio_guide_scale != 1)
    pixels = height * width
    work = float(len(spans) * settings.frame_num * pixels * len(steps_taken(settings)) * passes)
    return Task(task.id, task.place, settings, job, task.any_seed, len(spans), pixels, work)


def _seconds(path: Path) -> float:
    """How long a sound is, as its header tells; what is decoded tells better."""
    with open_container(path) as container:
        return min((container.duration or 0) / av.time_base, LONGEST)


def in_order(tasks: Sequence[Task]) -> list[Task]:
    """Those of the same models after one another, then those of a size, small ones first, which leave most of the
    transformer on the card; then the long ones, so that none is left alone at the end; those of one speech together.
    """
    first = {task.models: number for number, task in reversed(list(enumerate(tasks)))}
    return sorted(tasks, key=lambda task: (first[task.models], task.pixels, -task.work, str(task.job.sounds())))


def shard(lines: Sequence[Line], index: int, count: int) -> Iterator[Line]:
    """Every ``count``-th line, from the one of number ``index`` (from 0) on; it follows from the manifest alone."""
    yield from lines[index::count]
