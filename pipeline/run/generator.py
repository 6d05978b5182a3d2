"""The engine's front: load the models once, make as many videos as wanted.

    from infinitetalk.pipeline import Generator, Job, Settings

    generator = Generator(Settings(ckpt_dir="...", infinitetalk_dir="...", wav2vec_dir="..."))
    job = Job(reference=Path("me.png"), speech=Path("hello.wav"), prompt="A woman talks")
    for window in generator.windows(job):      # uint8 frames, window by window
        ...
    generator.save(job, Path("hello.mp4"))     # or the whole video with its sound

Paths that are left out are looked up under ``weights``. Models are loaded when they are first needed and kept. Settings
that name files, device or memory belong to the generator; all others may change from video to video.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import torch

from ..checkpoints.defaults import with_default_paths
from ..checkpoints.locate import ModelFiles, find_model_files
from ..errors import InputError
from ..facts.sizes import GIB
from ..job.identity import contents_of, run_identity, weights_identity
from ..job.job import Job
from ..job.output import path_to_write
from ..job.record import record_of
from ..media.audio import FPS
from ..media.fragments import VideoFormat
from ..parallel.cards import Cards, planned
from ..planning.describe import describe_cards
from ..planning.run_plan import RunPlan, plan_models, plan_run
from ..settings.definition import Settings, names_with
from ..settings.roles import Json, Role
from ..settings.validation import resolve
from .loaded_models import LoadedModels
from .not_finite import explained
from .progress import Fact, Progress, RunStarted, no_progress
from .recording import Run, Target, record
from .resume import RunState, check_same_run, check_state, unfinished
from .streaming import NoiseSource, stream
from .windows import NO_WINDOWS, Before, NotFinite, Window

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def models_key(settings: Settings) -> tuple:
    """Equal for settings that mean the same models, kept and run in the same way, as long as the files stay.

    Raises:
        InputError: a file is missing.
    """
    stamps = []
    for path in find_model_files(settings).by_name().values():
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            if file.is_file():
                stamps.append((file, file.stat().st_size, file.stat().st_mtime_ns))
    return tuple(getattr(settings, name) for name in names_with(Role.MODELS)), tuple(stamps)


@dataclass(frozen=True)
class Prepared:
    """A video that is about to be made and written.

    Attributes:
        identity: everything that decides its frames, by name.
        state: of an earlier run that is gone on with.
    """

    plan: RunPlan
    identity: dict[str, Json]
    state: RunState | None

    @property
    def windows_done(self) -> int:
        return 0 if self.state is None else self.state.windows


class Generator:
    """Makes talking videos.

    Args:
        settings: which models, where they run, and the defaults for every video.
        progress: hears what is being loaded and how far a video is; if it raises, the run stops.
        keep_models: keep all models in host memory between videos, so that ``release`` can give the card back and no
            file is read twice.
        make_room: called with the bytes that are wanted on the card before it is looked how many are free.
        cards: that make every video together, each by a generator that is told the same; the first one writes.

    Attributes:
        models: what is loaded.

    Raises:
        InputError: settings are not right, or files are missing or of another kind.
    """

    def __init__(
        self,
        settings: Settings,
        progress: Progress = no_progress,
        keep_models: bool = False,
        make_room: Callable[[int], None] = lambda wanted: None,
        cards: Cards | None = None,
    ) -> None:
        self.settings = with_default_paths(resolve(settings))
        self.progress = progress
        if self.settings.threads is not None:
            torch.set_num_threads(self.settings.threads)  # of the process, as PyTorch has it
        self._cards = cards
        count, rates = (1, None) if cards is None else (cards.count, cards.rates)
        self._plan = plan_models(self.settings, keep_models, count, rates)
        self.models = LoadedModels(self._plan, make_room, cards)

    def plan(self, job: Job, settings: Settings | None = None) -> RunPlan:
        """What making a video would do.

        Args:
            settings: for this video, instead of the generator's.

        Raises:
            InputError: the job's files cannot be used, or the settings do not go with the generator's.
        """
        return plan_run(self._plan, self._for_video(settings), job, self.models.transformer is not None)

    def windows(self, job: Job, settings: Settings | None = None, noise: NoiseSource | None = None) -> Iterator[Window]:
        """Make a video and yield its frames window by window.

        Args:
            settings: for this video, instead of the generator's.
            noise: gives window k's initial noise [z, T, H/8, W/8], instead of the seed.

        Yields:
            Windows of uint8 frames [T, H, W, 3] at 25 frames a second, in order and without overlap.
        """
        plan = self.plan(job, settings)
        self._tell(plan)
        for window, _ in self._stream(plan, NO_WINDOWS, self.progress, noise):
            yield window

    def save(
        self, job: Job, path: Path, settings: Settings | None = None, tags: Mapping[str, str] | None = None
    ) -> Path:
        """Make a video and write it, with the original sound, to ``path`` (.mp4). Returns the path.

        While it is made, the windows so far lie beside it in ``NAME.partial.mp4``, and with
        ``settings.resume`` a later call goes on after them and ends with the same bytes.

        Args:
            tags: metadata for the file beside the settings.

        Raises:
            InputError: also if a video of this name is there, finished or not, and the settings say neither
                ``resume`` nor ``overwrite``, or if an unfinished one was made from something else.
        """
        prepared = self.prepare(job, path, settings)
        plan, state, settings = prepared.plan, prepared.state, prepared.plan.settings
        self._tell(plan)
        before = NO_WINDOWS if state is None else Before(state.windows, state.motion, state.noise)
        if self._cards is not None:
            self._cards.wait()  # until all have read what the first one changes now
            if not self._cards.first:
                for _ in self._stream(plan, before, self.progress):
                    pass
                return path
        metadata = asdict(record_of(settings, job, contents_of(prepared.identity)))
        written = None if state is None else state.written
        video = VideoFormat(*plan.size, crf=settings.crf)
        target = Target(path, video, plan.soundtrack, metadata, tags, settings.overwrite)
        run = Run(prepared.identity, before.windows, settings.base_seed, written)
        record(target, run, partial(self._stream, plan, before), self.progress)
        return path

    def prepare(self, job: Job, path: Path, settings: Settings | None = None) -> Prepared:
        """All that ``save`` decides before it loads and writes anything; raises what it raises."""
        settings = self._for_video(settings)
        state = unfinished(path, settings, job.files())
        plan, identity = self.plan(job, settings), self.identity(job, settings)
        if state is not None:
            check_same_run(state.identity, identity)
            check_state(path, state, plan.spans, (3, settings.motion_frame, *plan.size))
            if os.path.lexists(path) and state.windows < len(plan.spans) and not settings.overwrite:
                raise InputError(f"--resume: {path} exists; give --overwrite as well to replace it, or move it away.")
        return Prepared(plan, identity, state)

    def identity(self, job: Job, settings: Settings | None = None) -> dict[str, Json]:
        """Everything that decides the frames of a video, by name, as JSON has it."""
        settings = self._for_video(settings)
        return run_identity(settings, job, self._weights_identity, self._plan.computes(settings))

    def encode_prompts(self, prompts: Sequence[str]) -> None:
        """Encode prompts of videos to come, so that the text encoder is opened once for all of them.

        They are kept in the cache on the disk; where that cannot be, each video encodes its own.
        """
        self.models.encode_prompts(prompts, self.progress)

    def close(self) -> None:
        """Nothing: what is loaded goes with the generator."""

    @property
    def files(self) -> ModelFiles:
        """The files of all models."""
        return self._plan.files

    def release(self) -> None:
        """Give the card's memory back after a video; what was made with ``keep_models`` waits in host memory."""
        self.models.release()

    @cached_property
    def _weights_identity(self) -> dict[str, str]:
        return weights_identity(self._plan.files.by_name())

    def _for_video(self, settings: Settings | None) -> Settings:
        if settings is None:
            return self.settings
        settings = with_default_paths(resolve(settings))
        for name in names_with(Role.MODELS):
            if getattr(settings, name) != getattr(self.settings, name):
                raise InputError(f"{name} belongs to the generator, whose models are loaded: make another Generator.")
        return settings

    def _tell(self, plan: RunPlan) -> None:
        for notice in plan.notices:
            self.progress(notice)
        if self._cards is not None:
            self.progress(Fact(describe_cards(plan)))

    def _stream(
        self, plan: RunPlan, before: Before, progress: Progress, noise: NoiseSource | None = None
    ) -> Iterator[tuple[Window, Before]]:
        """Windows, each with what the next one needs, after those that were made before."""
        spans = plan.spans
        if before.windows == len(spans):
            self.progress(RunStarted(len(spans), plan.frames, plan.frames / FPS, len(spans), plan.frames / FPS))
            return
        card = self._plan.machine.device if self._plan.machine.device.type == "cuda" else None
        if card is not None:
            torch.cuda.reset_peak_memory_stats(card)
        inputs = self.models.inputs(plan, self.progress)
        models, plan = self.models.for_video(plan, self.progress)
        first = spans[before.windows]
        done = first.start + first.keep_from
        self.progress(RunStarted(len(spans), plan.frames, plan.frames / FPS, before.windows, done / FPS))
        try:
            yield from stream(models, inputs, plan.settings, spans, progress, noise, before)
        except NotFinite as error:
            dtype = str(self._plan.machine.dtype).removeprefix("torch.")
            raise explained(error, plan.settings, self._plan.files, dtype) from error
        if card is not None:
            peak, estimate = torch.cuda.max_memory_reserved(card) / GIB, plan.memory.peak / GIB
            self.progress(Fact(f"the card's memory at its peak: {peak:.1f} GiB, planned {estimate:.1f}"))


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn what PyTorch raises for lack of memory, which is not always a MemoryError, into a sentence."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, torch.OutOfMemoryError) or "CUDA" in text and any(m in text for m in _OUT_OF_MEMORY):
            raise InputError(
                f"The card's memory does not suffice ({text.splitlines()[0]}) What helps, in this order: "
                "--vram_limit with less than the card has, --offload_model true, --blocks_to_swap 40, a smaller --size."
            ) from error
        if isinstance(error, MemoryError) or any(mark in text for mark in _OUT_OF_MEMORY):
            raise InputError(
                "This computer's memory does not suffice; close other programs or choose a smaller --size."
            ) from error
        raise


def prepare(settings: Settings, job: Job, cards: int = 1) -> Prepared:
    """What ``generate`` would do on so many cards; raises what it raises before it loads anything."""
    path = path_to_write(settings)
    with memory_errors():
        return Generator(settings, cards=planned(cards)).prepare(job, path)


def generate(settings: Settings, job: Job, progress: Progress = no_progress, cards: Cards | None = None) -> Path:
    """Make one video, as the command line does; ``settings.save_file`` is the path to write.

    Args:
        cards: that make it together; all call this with the same.

    Raises:
        InputError: also when memory does not suffice.
    """
    path = path_to_write(settings)
    with memory_errors():
        return Generator(settings, progress, cards=cards).save(job, path)
