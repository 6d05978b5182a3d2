"""The engine's front: load the models once, make as many videos as wanted.

    from infinitetalk.pipeline import Generator, Job, Settings

    generator = Generator(Settings(ckpt_dir="...", infinitetalk_dir="...", wav2vec_dir="..."))
    job = Job(reference=Path("me.png"), speech=Path("hello.wav"), prompt="A woman talks")
    for window in generator.windows(job):      # uint8 frames, window by window
        ...
    generator.save(job, Path("hello.mp4"))     # or the whole video with its sound

Models are loaded when they are first needed and kept. Settings that name files, device or memory
belong to the generator; all others may change from video to video.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path

import av
import numpy as np
import torch

from ..checkpoints.locate import check_model_files, find_model_files
from ..errors import InputError
from ..facts.buckets import target_size
from ..facts.sizes import GIB
from ..job.identity import run_identity, weights_identity
from ..job.job import Job
from ..job.record import record_of
from ..media.audio import FPS, Audio, frame_count, open_audio
from ..media.reference import Reference, open_reference
from ..media.speech import speech_for_model
from ..media.writer import VideoWriter
from ..models.image_encoder import ImageEncoder, load_image_encoder
from ..models.speech_encoder import SpeechEncoder, load_speech_encoder
from ..models.text.cache import default_cache_dir, encode_prompts, text_identity
from ..models.text.encoder import TextEncoder, load_text_encoder
from ..models.transformer.blocks import TransformerBlocks
from ..models.transformer.loading import load_transformer
from ..models.transformer.model import WanTransformer
from ..models.transformer.weights import open_weights
from ..models.vae.kernels import choose_vae_kernels
from ..models.vae.model import WanVAE, load_vae
from ..planning.machine import (
    choose_device,
    choose_dtype,
    choose_operations,
    choose_vae,
    describe_computation,
    free_memory,
)
from ..planning.memory import MARGIN, TEXT_ENCODER_ROOM, MemoryEstimate, Placement, host_bytes
from ..planning.notices import input_notices
from ..planning.windows import WindowSpan, cut_notice, plan_memory, window_plan
from ..residency.host_memory import host_memory_notice
from ..sampling.guidance import guidance_branches
from ..settings.definition import Settings, names_with
from ..settings.roles import Role
from ..settings.validation import resolve
from ..version import __version__
from .handover import Handover
from .progress import BlockLoaded, Event, Finished, Kept, Loading, Notice, Progress, RunStarted, WindowDone, no_progress
from .resume import RunState, check_same_run, remove_state, save_state, unfinished
from .speech import EncodedSpeech
from .streaming import Inputs, Models, NoiseSource, Window, stream

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


@dataclass(frozen=True)
class _Opened:
    """A job's files, open and decoded as far as planning needs."""

    reference: Reference
    audio: Audio
    speech: np.ndarray
    spans: tuple[WindowSpan, ...]
    size: tuple[int, int]

    @property
    def frames(self) -> int:
        return self.spans[-1].start + self.spans[-1].keep_to


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


class Generator:
    """Makes talking videos.

    Args:
        settings: which models, where they run, and the defaults for every video.
        progress: hears what is being loaded and how far a video is; if it raises, the run stops.
        keep: keep all models in host memory between videos, so that ``release`` can give the card back and no
            file is read twice.
        make_room: called with the bytes that are wanted on the card before it is looked how many are free.

    Raises:
        InputError: settings are not right, or files are missing or of another kind.
    """

    def __init__(
        self,
        settings: Settings,
        progress: Progress = no_progress,
        keep: bool = False,
        make_room: Callable[[int], None] = lambda wanted: None,
    ) -> None:
        self.settings = resolve(settings)
        self.progress = progress
        self._make_room = make_room
        self.device = choose_device(self.settings.device)
        self.dtype = choose_dtype(self.settings.dtype, self.device)
        self.operations = choose_operations(self.settings, self.device, self.dtype)
        self.files = find_model_files(self.settings)
        check_model_files(self.files)
        self._weights = open_weights(self.settings, self.files.transformer, self.operations.matmuls, self.dtype)
        self._transformer: tuple[WanTransformer, TransformerBlocks] | None = None
        self._planned: MemoryEstimate | None = None
        self._vae: WanVAE | None = None
        self._free: int | None = None
        self._keep = keep

    def windows(self, job: Job, settings: Settings | None = None, noise: NoiseSource | None = None) -> Iterator[Window]:
        """Make a video and yield its frames window by window.

        Args:
            settings: for this video, instead of the generator's.
            noise: gives window k's initial noise [z, T, H/8, W/8], instead of the seed.

        Yields:
            Windows of uint8 frames [T, H, W, 3] at 25 frames a second, in order and without overlap.
        """
        settings = self._for_video(settings)
        for window, _ in self._stream(job, self._open(job, settings), settings, noise):
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
        settings = self._for_video(settings)
        before = unfinished(path, settings)
        opened = self._open(job, settings)
        identity = self.identity(job, settings)
        if before is not None:
            check_same_run(before.identity, identity)
        continued = before and before.written
        metadata = asdict(record_of(settings, job))
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with VideoWriter(path, *opened.size, FPS, settings.crf, opened.audio, metadata, continued, tags) as writer:
            done = before.windows if before else 0

            def write(window: Window, motion: torch.Tensor) -> None:
                nonlocal done
                if window.index == 0:
                    remove_state(path)  # an earlier run's, which now is overwritten
                writer.write_window(window.frames)
                done = window.index + 1
                save_state(path, RunState(identity, done, writer.written, motion))

            def tell(index: int, count: int) -> None:
                self.progress(WindowDone(index, count, writer.written.frames / FPS))

            try:
                with Handover() as handover:  # a window is written while the next one is made

                    def listen(event: Event) -> None:
                        handover.look()
                        self.progress(event)

                    for window, motion in self._stream(job, opened, settings, None, before, listen):
                        handover.give(partial(write, window, motion.cpu()), partial(tell, window.index, window.count))
                    handover.wait()
                writer.finish()
            except BaseException:
                if done:
                    self.progress(Kept(path, writer.partial, done, settings.base_seed))
                raise
            remove_state(path)
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_reserved(self.device) / GIB
            planned = "" if self._planned is None else f", planned {self._planned.peak / GIB:.1f}"
            self.progress(Notice(f"the card's memory at its peak: {peak:.1f} GiB{planned}"))
        self.progress(Finished(path))
        return path

    def identity(self, job: Job, settings: Settings | None = None) -> dict[str, object]:
        """Everything that decides the frames of a video, by name, as JSON has it."""
        settings = self._for_video(settings)
        return run_identity(settings, job, self._weights_identity, self._computes(settings))

    def release(self) -> None:
        """Give the card's memory back after a video; what was made with ``keep`` waits in host memory."""
        if self.device.type == "cpu":
            return
        if not self._keep:
            self._transformer = None
        elif self._transformer is not None:
            transformer, blocks = self._transformer
            blocks.to_host()
            transformer.to_without_blocks("cpu")
        for name in ("speech_encoder", "image_encoder"):
            if name in self.__dict__:  # loaded
                getattr(self, name).move_to("cpu")
        if self._vae is not None:
            self._vae.move_to("cpu")

    @cached_property
    def _weights_identity(self) -> dict[str, str]:
        return weights_identity(self.files.by_name())

    def _computes(self, settings: Settings) -> dict[str, str]:
        """What besides the settings decides the last bits."""
        vae = choose_vae(settings, self.device)
        return {
            "device": self.device.type,
            "dtype": str(self.dtype).removeprefix("torch."),
            "VAE's dtype": str(vae.dtype).removeprefix("torch."),
            "VAE's tiles": str(vae.tiles),
            "attention": self.operations.attend.name,
            "kernels": self.operations.pointwise.name,
            "products": self._weights.products,
            "infinitetalk": __version__,
            "torch": torch.__version__,
            "av": av.__version__,
        }

    def _for_video(self, settings: Settings | None) -> Settings:
        if settings is None:
            return self.settings
        for name in names_with(Role.MODELS):
            if getattr(settings, name) != getattr(self.settings, name):
                raise InputError(f"{name} belongs to the generator, whose models are loaded: make another Generator.")
        return resolve(settings)

    def _open(self, job: Job, settings: Settings) -> _Opened:
        reference = open_reference(job.reference)
        if isinstance(job.speech, EncodedSpeech):
            audio, speech = job.speech.audio, job.speech.samples
        else:
            audio = open_audio(job.speech)
            speech = speech_for_model(audio)
        frames = frame_count(len(speech))
        spans = window_plan(frames, settings.frame_num, settings.motion_frame, settings.max_frame_num)
        size = target_size(settings.size, reference.height, reference.width)
        cut = cut_notice(frames, spans[-1].start + spans[-1].keep_to)
        for text in (*input_notices(job, speech, reference, size), *([cut] if cut else [])):
            self.progress(Notice(text, warning=True))
        return _Opened(reference, audio, speech, spans, size)

    def _stream(
        self,
        job: Job,
        opened: _Opened,
        settings: Settings,
        noise: NoiseSource | None,
        before: RunState | None = None,
        progress: Progress | None = None,
    ) -> Iterator[tuple[Window, torch.Tensor]]:
        """Windows with the motion frames that follow them, after those that were made before."""
        spans, total = opened.spans, opened.frames
        done, frames_done = (before.windows, before.written.frames) if before else (0, 0)
        if done < len(spans):
            inputs = self._encode(job, opened, settings)
            models = self._models(opened.size, settings)
        self.progress(RunStarted(len(spans), total, total / FPS, done, frames_done / FPS))
        if done < len(spans):
            motion = before and before.motion
            yield from stream(models, inputs, settings, spans, progress or self.progress, noise, done, motion)

    def _encode(self, job: Job, opened: _Opened, settings: Settings) -> Inputs:
        """Text and speech encoders run before the transformer arrives."""
        scales = settings.sample_text_guide_scale, settings.sample_audio_guide_scale
        guided = "drop_text" in guidance_branches(*scales)
        prompt, *negative = self._encode_prompts([job.prompt, job.negative_prompt][: 2 if guided else 1])
        if isinstance(job.speech, EncodedSpeech):
            job.speech.move_to(self.device)
            return Inputs(opened.reference, job.speech.features, prompt, *negative)
        self.speech_encoder.move_to(self.device)
        self.progress(Loading("encoding the speech"))
        return Inputs(opened.reference, self.speech_encoder.encode(opened.speech), prompt, *negative)

    def _encode_prompts(self, prompts: list[str]) -> list[torch.Tensor]:
        """umT5 embeddings; the encoder is opened only for prompts that are not in the cache."""
        device = torch.device("cpu") if self.settings.t5_cpu else self.device
        files = self.files.text_encoder, self.settings.tokenizer, self.settings.ckpt_dir

        def load() -> TextEncoder:
            if device.type == "cuda":
                self._make_room(TEXT_ENCODER_ROOM)
                if (free_memory(device) or 0) < TEXT_ENCODER_ROOM:
                    self.release()  # what an earlier video left there
            self.progress(Loading("encoding the prompt"))
            return load_text_encoder(*files, device, self.dtype)

        return encode_prompts(prompts, load, f"{self._text_identity} {device.type}", default_cache_dir())

    @cached_property
    def _text_identity(self) -> str:
        return text_identity(self.files.text_encoder, self.settings.tokenizer, self.settings.ckpt_dir, self.dtype)

    @cached_property
    def speech_encoder(self) -> SpeechEncoder:
        self.progress(Loading("loading the speech encoder"))
        return load_speech_encoder(self.files.speech_encoder, self.device)

    @cached_property
    def image_encoder(self) -> ImageEncoder:
        self.progress(Loading("loading the image encoder"))
        return load_image_encoder(self.files.clip_vision, torch.device("cpu"), self.dtype)

    def _vae_in(self, dtype: torch.dtype) -> WanVAE:
        """The VAE, loaded anew where the video before wanted it in another dtype."""
        if self._vae is None or self._vae.conv1.weight.dtype != dtype:
            self._vae = None
            self.progress(Loading("loading the VAE"))
            kernels = choose_vae_kernels(self.settings.kernels, self.device)
            self._vae = load_vae(self.files.vae, self.device, dtype, kernels)
        return self._vae

    def _models(self, size: tuple[int, int], settings: Settings) -> Models:
        """All models for a video of this size; the transformer anew where less of it can stay on the card."""
        vae_plan = choose_vae(settings, self.device)
        image_encoder, vae = self.image_encoder, self._vae_in(vae_plan.dtype)
        itemsize, offload = self.dtype.itemsize, bool(self.settings.offload_model)
        weights, keep = self._weights, self._keep and self.device.type != "cpu"
        if keep and self._transformer is not None:
            self._transformer[1].to_host()
        if self._transformer is None or keep:
            _, ideal = plan_memory(weights.size, settings, *size, itemsize, None, vae_plan)
            limit = math.inf if settings.vram_limit is None else int(settings.vram_limit * GIB)
            self._make_room(min(ideal.peak + MARGIN, limit))
            self._free = free_memory(self.device, settings.vram_limit)
        there, planned = plan_memory(weights.size, settings, *size, itemsize, self._free, vae_plan)
        if self._transformer is None:
            self._transformer = self._load_transformer(there, offload or keep)
            computation = describe_computation(self.device, self.dtype, self.operations, vae_plan)
            stay = f"{there.resident} of {weights.size.blocks} blocks stay there"
            self.progress(Notice(f"transformer: {computation}; {stay}"))
        elif keep:
            transformer, blocks = self._transformer
            transformer.to_without_blocks(self.device)
            blocks.place(there.resident, there.contexts)
        else:  # less may stay than for the video before, not more
            blocks = self._transformer[1]
            blocks.place(min(there.resident, blocks.resident), there.contexts and blocks.contexts_stay)
        self._planned = planned
        return Models(*self._transformer, image_encoder, vae, self.device, offload, vae_plan)

    def _load_transformer(self, there: Placement, offload: bool) -> tuple[WanTransformer, TransformerBlocks]:
        weights = self._weights
        self.progress(Loading("loading the transformer"))
        for notice in weights.notices:
            self.progress(Notice(notice))
        short = host_memory_notice(host_bytes(weights.size, there, offload), weights.made)
        if short and self.device.type != "cpu":
            self.progress(Notice(short, warning=True))
        blocks = TransformerBlocks(self.device, there.resident, there.contexts, offload)
        transformer = load_transformer(
            weights.tensors,
            self.operations,
            weights.keeping,
            blocks,
            weights.loras,
            lambda done, count: self.progress(BlockLoaded(done, count)),
        )
        return transformer, blocks


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


def generate(settings: Settings, job: Job, progress: Progress = no_progress) -> Path:
    """Make one video, as the command line does; ``settings.save_file`` is the path to write.

    Raises:
        InputError: also when memory does not suffice.
    """
    with memory_errors():
        return Generator(settings, progress).save(job, settings.save_file)
