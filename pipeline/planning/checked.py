"""The first stage of planning: all that can be refused without PyTorch, in an instant.

Packages that flags ask for, paths, headers of weights files, what picture and sound are, where the video goes. Files of
``torch.save`` have no header: they are found by their names, and opened in the second stage, ``run_plan``, which
knows the machine and goes on from here with the same words.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.files import has_header, open_tensors
from ..checkpoints.locate import (
    EncoderFiles,
    ModelFiles,
    TransformerFiles,
    check_encoder_files,
    check_silence,
    check_speech_encoder,
    check_voice_separator,
    find_encoder_files,
    find_silence,
    find_speech_encoder,
    find_transformer_files,
    find_voice_separator,
)
from ..checkpoints.missing import refuse_missing
from ..facts.attention import ATTENTION
from ..facts.solvers import SCHEDULES, SOLVERS
from ..job.job import Job
from ..job.output import check_unfinished, partial_path, path_to_write
from ..lora.reading import check_kind
from ..media.audio import check_audio
from ..media.publishing import check_not_written
from ..media.reference import open_reference
from ..models.transformer.files import check_headers
from ..settings.definition import Settings


@dataclass(frozen=True)
class Checked:
    """What passed: settings, job, and the files of all models."""

    settings: Settings
    job: Job
    files: ModelFiles


def check_run(settings: Settings, job: Job) -> Checked:
    """Look at everything that one video is made from and by.

    Args:
        settings: resolved; ``save_file`` is the path to write.

    Raises:
        InputError: what is missing, of another kind or in the way.
    """
    path = path_to_write(settings)
    check_not_written(partial_path(path), path)
    check_unfinished(path, settings, job.files())
    check_sampling(settings)
    check_job(job)
    return Checked(settings, job, check_files(settings))


def check_files(settings: Settings) -> ModelFiles:
    """Look at the files of all models.

    Raises:
        InputError: see ``check_models`` and ``check_speech``; where several are missing, all of them are named.
    """
    refuse_missing(settings, speech=True)
    speech, voice = check_speech(settings.wav2vec_dir), check_voice(settings.separate_voice)
    if (silence := find_silence(settings.silence)) is not None:
        check_silence(silence, headers_alone=True)
    return ModelFiles(*check_models(settings), speech, voice, silence)


def check_models(settings: Settings, comfy: bool = False) -> tuple[TransformerFiles, EncoderFiles]:
    """Look at what ComfyUI's loader chooses: how the transformer computes, its files, and those of all models but one.

    Args:
        comfy: whether it is the loader that asks, so that what is missing is named by its widgets.

    Raises:
        InputError: a package or a file is missing, or a file is of another kind.
    """
    if settings.attention in ATTENTION and settings.device != "cpu":  # where few work, whatever is installed
        ATTENTION[settings.attention].check_package()
    refuse_missing(settings, speech=False, comfy=comfy)
    transformer = find_transformer_files(settings)
    encoders = find_encoder_files(settings, transformer)
    check_encoder_files(encoders, headers_alone=True)
    check_transformer(transformer, settings)
    return transformer, encoders


def check_transformer(files: TransformerFiles, settings: Settings) -> None:
    """Look at the files of the transformer and its LoRAs.

    Raises:
        InputError: a file is missing, or of another kind.
    """
    check_headers(files.base, files.infinitetalk, whole=settings.quant_dir is not None)
    for path in files.loras:
        if has_header(path, "--lora_dir"):
            check_kind(path, open_tensors(path, "--lora_dir"))


def check_speech(path: Path | None) -> Path:
    """Look at what ComfyUI's audio encoder chooses: the speech encoder, a folder or a file.

    Raises:
        InputError: it is missing or of another kind.
    """
    path = find_speech_encoder(path)
    check_speech_encoder(path, headers_alone=True)
    return path


def check_voice(path: Path | None) -> Path | None:
    """Look at the voice separator, if there is one.

    Raises:
        InputError: it is missing or of another kind, or a package that it needs is missing.
    """
    path = find_voice_separator(path)
    if path is not None:
        check_voice_separator(path, headers_alone=True)
    return path


def check_sampling(settings: Settings) -> None:
    """Look at what ComfyUI's sampler chooses.

    Raises:
        InputError: a package is missing.
    """
    SOLVERS[settings.sample_solver].check()
    if settings.sample_schedule is not None:
        SCHEDULES[settings.sample_schedule].check()


def check_job(job: Job) -> None:
    """Look at the files of a job: the picture is read, of a video the first frame, of a sound the header.

    Raises:
        InputError: one is missing, cannot be read or is something else.
    """
    if isinstance(job.reference, Path):
        open_reference(job.reference)
    for sound in dict.fromkeys((job.speech, *job.sounds())):
        if isinstance(sound, Path):
            check_audio(sound)
