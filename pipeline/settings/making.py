"""How a video is made: its size, windows and colours, and how it is sampled.

One part of ``definition.Settings``, which joins them; knows nothing of models, or the machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from ..facts.colours import COLOURS, colours_help
from ..facts.noises import NOISES, noises_help
from ..facts.packs import PACKS, packs_help
from ..facts.solvers import SCHEDULES, SOLVERS, solvers_help, steps_help
from .roles import FOLLOWS, FRAMES, NEUTRAL, UNSAID, UPSTREAM, VIDEO, setting

video_setting = partial(setting, group="Video")
sampling_setting = partial(setting, group="Sampling")


@dataclass(frozen=True)
class VideoSettings:
    """What the frames are like."""

    size: str = video_setting(
        "infinitetalk-480",
        "infinitetalk-480 or infinitetalk-720 (aspect as the reference's), or WIDTHxHEIGHT, snapped to 16",
        VIDEO | FRAMES | UPSTREAM,
        sampler=2,
    )
    mode: str = video_setting(
        "streaming",
        "streaming: as long as the speech; clip: one window",
        VIDEO | FRAMES | UPSTREAM,
        sampler=3,
        upstream_default="clip",
        choices=("streaming", "clip"),
    )
    frame_num: int = video_setting(
        81, "length of a window: 4n+1", VIDEO | FRAMES | UPSTREAM, sampler=4, min=5, unit="frames"
    )
    motion_frame: int = video_setting(
        9,
        "end of a window that the next one starts from; below frame_num",
        VIDEO | FRAMES | UPSTREAM,
        sampler=5,
        min=1,
        unit="frames",
    )
    max_frame_num: int | None = video_setting(
        None,
        "longest video; speech beyond it is cut (none: unlimited)",
        VIDEO | FRAMES | FOLLOWS | UPSTREAM,
        sampler=6,
        upstream_default=1000,
        min=1,
        unit="frames",
    )
    color_correction_strength: float = video_setting(
        1.0,
        "how far colours are pulled to the reference's; 0 is off",
        VIDEO | FRAMES | UPSTREAM,
        sampler=7,
        min=0,
        max=1,
    )
    whole_windows: bool = video_setting(
        False,
        "keep the frames of the last window that lie behind the end of the speech, as graphs of ComfyUI do",
        VIDEO | FRAMES,
    )
    pack: str = video_setting("upstream", packs_help(), VIDEO | FRAMES, choices=tuple(PACKS))
    resize: tuple[str, ...] | None = video_setting(
        None,
        "how the reference is resized: METHOD,FIT[,POSITION][,WIDTHxHEIGHT], in steps, such as lanczos,crop (left out: "
        "scaled bilinearly, the middle cut out, as upstream does)",
        VIDEO | FRAMES,
    )
    clip_crop: str | None = video_setting(
        None,
        "what CLIP sees of the picture, as ComfyUI's CLIPVisionEncode has it: its middle (center), or all of it, "
        "squeezed (squeeze); off: nothing, the transformer is given the prompt instead, as graphs without "
        "clip_vision_output do (left out: what --pack does)",
        VIDEO | FRAMES,
        choices=("center", "squeeze", "off"),  # "none" would be to leave it out
    )
    color_method: str = video_setting(
        "lab",
        colours_help(),
        VIDEO | FRAMES,
        choices=tuple(COLOURS),
    )
    seam_frames: int = video_setting(
        0,
        "first new frames of a window that even out the small jump where windows meet; try 4, 0 is off",
        VIDEO | FRAMES,
        sampler=23,
        min=0,
        max=32,
        unit="frames",
    )


@dataclass(frozen=True)
class SamplingSettings:
    """How noise becomes frames."""

    preset: str | None = sampling_setting(
        None, "take settings from presets/NAME.toml; flags given beside it win", VIDEO | NEUTRAL | UNSAID
    )
    sample_steps: int | None = sampling_setting(
        None,
        f"denoising steps (left out: {steps_help()})",
        VIDEO | FRAMES | FOLLOWS | UPSTREAM,
        sampler=8,
        min=1,
        max=1000,
    )
    sample_shift: float | None = sampling_setting(
        None,
        "shift of the noise schedule (left out: 7 at 480, 11 at 720)",
        VIDEO | FRAMES | FOLLOWS | UPSTREAM,
        sampler=9,
        min=0.01,
        max=1000,
    )
    sample_solver: str = sampling_setting(
        "euler",
        solvers_help(),
        VIDEO | FRAMES | UNSAID,
        sampler=10,
        choices=tuple(SOLVERS),
    )
    sample_schedule: str | None = sampling_setting(
        None,
        "how ComfyUI's own solvers (comfy:...) space noise levels (left out: simple)",
        VIDEO | FRAMES,
        choices=tuple(SCHEDULES),
    )
    sample_text_guide_scale: float = sampling_setting(
        5.0, "guidance by the prompt; 1 is off and saves a pass", VIDEO | FRAMES | UPSTREAM, sampler=11, min=0
    )
    text_guide_schedule: tuple[float, ...] | None = sampling_setting(
        None,
        "guidance by the prompt in each step, instead of one scale for all; the last holds for steps that follow",
        VIDEO | FRAMES,
        min=0,
    )
    sample_audio_guide_scale: float = sampling_setting(
        4.0, "guidance by the speech; 1 is off and saves a pass", VIDEO | FRAMES | UPSTREAM, sampler=12, min=0
    )
    sample_audio_guide_steps: int | None = sampling_setting(
        None,
        "first steps with guidance by the speech, each later one saves its pass (left out: all steps)",
        VIDEO | FRAMES,
        sampler=22,
        min=1,
        unit="steps",
    )
    speech_strength: float = sampling_setting(
        1.0, "how much of what is heard is added in every block; 1 is usual", VIDEO | FRAMES, min=0, max=100
    )
    image_strength: float = sampling_setting(
        1.0,
        "how much of what the image encoder sees is shown to the model; 1 is usual",
        VIDEO | FRAMES,
        min=0,
        max=10,
    )
    base_seed: int = sampling_setting(
        42, "seed of the noise; negative: a random one", VIDEO | FRAMES | UPSTREAM, sampler=13, max=2**64 - 1
    )
    noise: str = sampling_setting("window", noises_help(), VIDEO | FRAMES, choices=tuple(NOISES))
    window_seeds: tuple[int, ...] | None = sampling_setting(
        None,
        "with --noise comfy: a seed for each window, the last for all later ones (left out: --base_seed for all)",
        VIDEO | FRAMES,
        min=0,
        max=2**64 - 1,
    )
    sample_start_step: int = sampling_setting(
        0,
        "step that is the first to be taken, counted from 0; earlier ones are left out",
        VIDEO | FRAMES,
        min=0,
        unit="steps",
    )
    sample_end_step: int | None = sampling_setting(
        None,
        "step before which sampling ends, with what noise is left (left out: all steps)",
        VIDEO | FRAMES,
        min=1,
        unit="steps",
    )
    use_apg: bool = sampling_setting(
        False, "adaptive projected guidance (arXiv 2410.02416)", VIDEO | FRAMES | UPSTREAM, sampler=15
    )
    apg_momentum: float = sampling_setting(
        -0.75, "momentum of --use_apg", VIDEO | FRAMES | UPSTREAM, sampler=16, min=-1, max=1
    )
    apg_norm_threshold: float = sampling_setting(
        55.0, "largest norm of a guidance step of --use_apg", VIDEO | FRAMES | UPSTREAM, sampler=17, min=0
    )
