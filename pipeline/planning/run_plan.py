"""What a run will do, decided once: files, machine, matrices, windows, memory, every refusal and every notice.

A dry run prints it (``describe``), a run executes it, ComfyUI's nodes ask it, so that all refuse the same things with
the same words. Opens every file as far as telling what it is; loads no weights and computes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from ..checkpoints.locate import (
    EncoderFiles,
    ModelFiles,
    TransformerFiles,
    check_encoder_files,
    check_silence,
    check_speech_encoder,
    check_voice_separator,
)
from ..errors import InputError
from ..facts.buckets import target_size
from ..facts.packs import PACKS
from ..facts.sizes import GIB
from ..job.job import Job
from ..media.audio import FPS, SAMPLE_RATE, Audio, Sound, frame_count, open_audio
from ..media.later import LateSound
from ..media.reference import Reference, open_reference
from ..media.speech import speech_for_model, speech_length
from ..models.image_encoder import load_image_encoder
from ..models.speech import EncodedSpeech
from ..models.speech_encoder import load_speech_encoder
from ..models.text.cache import Embeddings, default_cache_dir, not_cached, text_identity
from ..models.text.encoder import load_text_encoder
from ..models.transformer.matrices import TransformerSize, TransformerWeights
from ..models.transformer.weights import open_weights
from ..models.vae.model import load_vae
from ..models.voice.separator import load_separator, voice_in
from ..parallel.division import Division, Rates, Speed, divide
from ..residency.host_memory import host_memory_notice
from ..sampling.guidance import branches_of, most_passes
from ..sampling.solvers import make_solver
from ..settings.definition import Settings
from ..settings.validation import shift_of, steps_of, warnings_for
from .checked import check_files, check_models
from .machine import Machine, choose_device, choose_machine, choose_vae, computes, free_memory
from .memory import MARGIN, MemoryEstimate, Placement, VaePlan, Workload, host_bytes, plan_memory
from .notices import (
    Notice,
    cards_notices,
    cut_notice,
    knows_drawn_faces_only,
    picture_notices,
    short_notice,
    sound_notices,
    stand_in_notices,
)
from .speakers import SpeakersPlan, Spoken, plan_speakers, speakers_in, speakers_notices, spoken_by
from .windows import WindowSpan, tokens_per_window, window_plan


@dataclass(frozen=True)
class ModelsPlan:
    """Which models, and how they run: what holds for every video that is made with them.

    Attributes:
        settings: resolved.
        text_identity: what besides the prompt decides its embedding.
        keep_models: whether all weights wait in host memory between videos.
        cards: how many make a video together.
        rates: what they and their links can do; None where that was not measured.
    """

    settings: Settings
    files: ModelFiles
    machine: Machine
    weights: TransformerWeights
    text_identity: str
    keep_models: bool = False
    cards: int = 1
    rates: Rates | None = None

    @property
    def text_device(self) -> torch.device:
        """Where the text encoder works."""
        return _text_device(self.settings, self.machine)

    @property
    def embeddings(self) -> Embeddings:
        """What embeddings of prompts are like."""
        return Embeddings(self.weights.config.text_dim, self.machine.dtype)

    @property
    def threads(self) -> int | None:
        """How many threads compute what decides frames on the CPU; None where that is the card's work alone.

        PyTorch's number, which follows from ``--threads``, from the environment or from the cores, never from load.
        """
        on_cpu = "cpu" in (self.machine.device.type, self.text_device.type)
        return torch.get_num_threads() if on_cpu else None

    def computes(self, settings: Settings) -> dict[str, str]:
        """What besides settings and files decides the last bits of a video with these settings, by name."""
        return computes(self.machine, choose_vae(settings, self.machine.device), self.weights.products, self.threads)

    @property
    def size(self) -> TransformerSize:
        """What of the transformer memory depends on."""
        return replace(self.weights.size, shares=self.cards if self.settings.dit_fsdp else 1)

    def divide(self, settings: Settings, size: tuple[int, int], passes: int) -> Division:
        """How the cards share a step of so many passes in a video of this size.

        Raises:
            InputError: they cannot as the settings say.
        """
        whole, speed = self.weights.size, None
        if self.rates is not None:
            tokens = tokens_per_window(settings.frame_num, *size)
            speed = Speed(self.rates, tokens, whole.dim, whole.blocks, whole.block_parameters)
        together = settings.ulysses_size * settings.ring_size
        return divide(self.cards, passes, self.weights.config.num_heads, together, speed)

    def place(
        self, settings: Settings, size: tuple[int, int], vae: VaePlan, free: int | None
    ) -> tuple[Placement, MemoryEstimate]:
        """What of the transformer stays on the device in a video of this size, and what the video needs then.

        Args:
            free: bytes that are free on the device; None if that does not matter.

        Raises:
            InputError: the cards cannot be divided as the settings say.
        """
        passes = most_passes(settings)
        work = Workload.of(settings, size, self.machine.dtype.itemsize, self.divide(settings, size, passes))
        return plan_memory(self.size, settings, work, free, vae)


@dataclass(frozen=True)
class RunPlan:
    """One video: everything that is decided before the work begins.

    Attributes:
        settings: of this video, resolved, with the number of threads that compute it.
        audio: the sound as it was recorded.
        voice: the voice in it, where it is separated.
        speech: as the model hears it, mono, 16 kHz, -23 LUFS; of several speakers the sum.
        speakers: who is heard where, if it is not one voice everywhere.
        size: of the video, (height, width) in pixels.
        prompts: that are encoded: the prompt, and the negative one where it matters.
        passes: through the transformer, in each step.
        notices: what the user should read before the work begins.
    """

    models: ModelsPlan
    settings: Settings
    job: Job
    reference: Reference
    audio: Audio
    voice: LateSound | None
    speech: LateSound
    speakers: SpeakersPlan | None
    prompts: tuple[str, ...]
    size: tuple[int, int]
    spans: tuple[WindowSpan, ...]
    passes: tuple[int, ...]
    vae: VaePlan
    placement: Placement
    memory: MemoryEstimate
    notices: tuple[Notice, ...]

    @property
    def soundtrack(self) -> Audio:
        """The sound of the finished video."""
        return {"original": self.audio, "voice": self.voice or self.audio, "speech": self.speech}[
            self.settings.output_sound
        ]

    @property
    def frames(self) -> int:
        """Frames of the video."""
        return self.spans[-1].start + self.spans[-1].keep_to

    def divide(self, passes: int) -> Division:
        """How the cards share a step of so many passes.

        Raises:
            InputError: they cannot as the settings say.
        """
        return self.models.divide(self.settings, self.size, passes)

    @property
    def tokens(self) -> int:
        """Of a window."""
        return tokens_per_window(self.settings.frame_num, *self.size)

    @property
    def forwards(self) -> int:
        """Passes through the transformer, all windows together."""
        return len(self.spans) * sum(self.passes)

    @property
    def wanted(self) -> int:
        """Bytes on the device with which all of the transformer could stay there, or as many as may be used."""
        _, ideal = self.models.place(self.settings, self.size, self.vae, None)
        needed, limit = ideal.peak + MARGIN, self.settings.vram_limit
        return needed if limit is None else min(needed, int(limit * GIB))

    def placed(self, free: int | None) -> RunPlan:
        """The same with so many bytes free on the device, which decides what stays there and no frame."""
        placement, memory = self.models.place(self.settings, self.size, self.vae, free)
        return replace(self, placement=placement, memory=memory)


def plan_models(
    settings: Settings, keep_models: bool = False, cards: int = 1, rates: Rates | None = None
) -> ModelsPlan:
    """Which models, and how they run.

    Args:
        settings: resolved.
        keep_models: whether all weights are to wait in host memory between videos.
        cards: how many make a video together.
        rates: what they and their links can do, if that was measured.

    Raises:
        InputError: files are missing, of another kind or do not go together, or the settings ask for what this
            machine cannot give.
    """
    files = check_files(settings)
    check_speech_encoder(files.speech_encoder)
    load_speech_encoder(files.speech_encoder, "meta")
    if files.voice_separator is not None:
        check_voice_separator(files.voice_separator)
        load_separator(files.voice_separator, "meta")
    if files.silence is not None:
        check_silence(files.silence)
    machine, weights = _chosen(settings, files.transformer, files.encoders)
    text_device = _text_device(settings, machine).type
    text = f"{text_identity(files.encoders.text, machine.dtype)} {text_device}"
    if text_device == "cpu":
        text += f" {torch.get_num_threads()}"
    keep_models = keep_models and machine.device.type != "cpu"
    return ModelsPlan(settings, files, machine, weights, text, keep_models, cards, rates)


def _text_device(settings: Settings, machine: Machine) -> torch.device:
    return torch.device("cpu") if settings.t5_cpu else machine.device


def check_choice(settings: Settings) -> None:
    """What ComfyUI's loader asks: all that ``plan_models`` refuses but for the speech, which another node chooses.

    Raises:
        InputError: see ``plan_models``.
    """
    _chosen(settings, *check_models(settings, comfy=True))
    choose_vae(settings, choose_device(settings.device))


def _chosen(
    settings: Settings, transformer: TransformerFiles, encoders: EncoderFiles
) -> tuple[Machine, TransformerWeights]:
    """The machine, and the transformer as it is kept there; encoders and VAE have all that their networks need.

    Numbers are not read.

    Raises:
        InputError: a file is damaged, of another kind, or lacks something; or the settings ask for what is not there.
    """
    machine = choose_machine(settings)
    check_encoder_files(encoders)
    load_vae(encoders.vae, "meta")
    load_image_encoder(encoders.clip_vision, "meta", torch.float32)
    return machine, open_weights(settings, transformer, machine.operations.matmuls, machine.dtype)


def plan_run(models: ModelsPlan, settings: Settings, job: Job, loaded: bool = False) -> RunPlan:
    """One video with these models.

    Args:
        settings: of this video, resolved.
        loaded: whether the transformer is there from an earlier video, so that nothing is to be said of loading it.

    Raises:
        InputError: the picture or the sound cannot be used, a package that the settings need is missing, or the text
            encoder is needed and does not fit its file.
    """
    make_solver(settings.sample_solver, steps_of(settings), shift_of(settings), torch.Generator())
    reference = open_reference(job.reference)
    spoken = _spoken(models, job)
    audio, voice, speech = _speech(models, settings, job) if spoken is None else _together(spoken)
    frames = frame_count(speech.num_samples)
    spans = window_plan(
        frames, settings.frame_num, settings.motion_frame, settings.max_frame_num, settings.whole_windows
    )
    size = target_size(settings.size, reference.height, reference.width)
    trained = speakers_in(models.weights.tensors)
    speakers = None if spoken is None else plan_speakers(job, spoken, reference, size, settings, trained)
    branches = branches_of(settings)
    prompts = (job.prompt, job.negative_prompt) if any("drop_text" in each for each in branches) else (job.prompt,)
    if not_cached(prompts, models.text_identity, default_cache_dir(), models.embeddings):
        load_text_encoder(models.files.encoders.text, "meta", torch.float32)
    vae = choose_vae(settings, models.machine.device)
    placement, memory = models.place(settings, size, vae, free_memory(models.machine.device, settings.vram_limit))
    warnings = (
        *warnings_for(settings),
        *stand_in_notices(models.settings.lora_dir, models.files.transformer.loras),
        *sound_notices(audio, speech.sound().samples[0] if speech.is_made else None),
        *picture_notices(job, reference, size, knows_drawn_faces_only(models.weights.config)),
        *speakers_notices(job.speakers, trained, settings.bind),
        *cut_notice(frames / FPS, (spans[-1].start + spans[-1].keep_to) / FPS),
    )
    return RunPlan(
        models=models,
        settings=settings.replace(threads=models.threads),
        job=job,
        reference=reference,
        audio=audio,
        voice=voice,
        speech=speech,
        speakers=speakers,
        prompts=prompts,
        size=size,
        spans=spans,
        passes=tuple(map(len, branches)),
        vae=vae,
        placement=placement,
        memory=memory,
        notices=(
            *(Notice(text, warning=True) for text in (*warnings, *cards_notices(settings))),
            *(Notice(text) for text in short_notice(spans, settings.motion_frame)),
            *(() if loaded else _loading_notices(models, placement)),
        ),
    )


def _spoken(models: ModelsPlan, job: Job) -> Spoken | None:
    """What a job's speakers say; None where one voice speaks for the whole picture."""
    if not job.speakers:
        return None
    if models.files.voice_separator is not None:
        raise InputError(
            "--separate_voice takes one voice out of a mix, but there are speakers of their own; give sound files "
            "without music, or leave it out."
        )
    return spoken_by(job)


def _together(spoken: Spoken) -> tuple[Audio, None, LateSound]:
    """As ``_speech``, of all speakers."""

    def heard() -> Sound:
        total = np.zeros(len(spoken.voices[0]), np.float32)
        for voice in spoken.voices:
            total += voice
        return Sound(total[None], SAMPLE_RATE, name)

    name = f"the speech in {spoken.soundtrack}"
    length = len(spoken.voices[0])
    return spoken.soundtrack, None, LateSound(SAMPLE_RATE, 1, length, spoken.soundtrack.heard, name, heard)


def _speech(models: ModelsPlan, settings: Settings, job: Job) -> tuple[Audio, LateSound | None, LateSound]:
    """The sound as it was recorded, the voice in it if that is to be separated, and what the model hears."""
    if job.speech is None:
        raise AssertionError("a job without speakers has speech")
    if isinstance(job.speech, EncodedSpeech):
        name = f"the speech in {job.speech}"
        return job.speech.soundtrack, None, LateSound.of(Sound(job.speech.samples[None], SAMPLE_RATE, name))
    audio = open_audio(job.speech)
    name, separator = f"the speech in {audio}", models.files.voice_separator
    way = PACKS[settings.pack], settings.max_frame_num
    if separator is None:
        return audio, None, LateSound.of(Sound(speech_for_model(audio, *way)[None], SAMPLE_RATE, name))
    voice = voice_in(audio, separator, models.machine.device)

    def heard() -> Sound:
        return Sound(speech_for_model(voice, *way)[None], SAMPLE_RATE, name)

    return audio, voice, LateSound(SAMPLE_RATE, 1, speech_length(voice, *way), audio.heard, name, heard)


def _loading_notices(models: ModelsPlan, placement: Placement) -> tuple[Notice, ...]:
    """How matrices are kept, what LoRAs do to them, and whether host memory holds what waits there."""
    notices = [Notice(text) for text in models.weights.notices]
    if models.machine.device.type != "cpu":
        offload = bool(models.settings.offload_model) or models.keep_models
        short = host_memory_notice(host_bytes(models.size, placement, offload), models.weights.made)
        notices += [Notice(short, warning=True)] if short else []
    return tuple(notices)
