"""Check everything that a run would use, and plan it, without computing anything.

Opens every file as far as telling what it is; loads no weights. Imports the engine's parts, so it
is imported only when it is needed.
"""

from __future__ import annotations

import torch

from ..checkpoints.locate import check_model_files, find_model_files
from ..facts.buckets import target_size
from ..job.job import Job
from ..media.audio import frame_count, open_audio
from ..media.reference import open_reference
from ..media.speech import speech_for_model
from ..models.transformer.weights import open_weights
from ..sampling.guidance import branches_of_steps
from ..sampling.solvers import make_solver
from ..settings.definition import Settings
from .machine import choose_device, choose_dtype, choose_operations, choose_vae, describe_computation, free_memory
from .windows import Plan, plan_memory, tokens_per_window, window_plan


def plan_run(settings: Settings, job: Job) -> Plan:
    """The plan of this run.

    Args:
        settings: resolved.

    Raises:
        InputError: something that the run needs is missing or of another kind.
    """
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    operations = choose_operations(settings, device, dtype)
    make_solver(settings.sample_solver, settings.sample_steps, settings.sample_shift, torch.Generator())
    files = find_model_files(settings)
    check_model_files(files)
    weights = open_weights(settings, files.transformer, operations.matmuls, dtype)

    speech_frames = frame_count(len(speech_for_model(open_audio(job.speech))))
    reference = open_reference(job.reference)
    height, width = target_size(settings.size, reference.height, reference.width)
    scales = settings.sample_text_guide_scale, settings.sample_audio_guide_scale
    branches = branches_of_steps(settings.sample_steps, *scales, settings.sample_audio_guide_steps)
    free, vae = free_memory(device, settings.vram_limit), choose_vae(settings, device)
    placement, memory = plan_memory(weights.size, settings, height, width, dtype.itemsize, free, vae)
    return Plan(
        computes=describe_computation(device, dtype, operations, vae),
        height=height,
        width=width,
        speech_frames=speech_frames,
        spans=window_plan(speech_frames, settings.frame_num, settings.motion_frame, settings.max_frame_num),
        passes=tuple(map(len, branches)),
        tokens=tokens_per_window(settings.frame_num, height, width),
        memory=memory,
        placement=placement,
        blocks=weights.size.blocks,
        weights=weights.notices,
    )
