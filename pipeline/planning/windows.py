"""How a video is cut into windows, and what making it takes. Arithmetic only.

Windows follow upstream (wan/multitalk.py): the first is ``frame_num`` frames, each next one starts
``frame_num - motion_frame`` later and repeats the last ``motion_frame`` frames before it; the last is the
first that reaches the end. Knows no files, no models and no device.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InputError
from ..facts.sizes import GIB
from ..media.audio import FPS
from ..models.transformer.matrices import TransformerSize
from ..sampling.guidance import guidance_branches
from ..settings.definition import Settings
from .memory import MemoryEstimate, Placement, VaePlan, estimate_memory, place_blocks

LATENT_FRAMES = 4  # video frames of a latent frame, but for the first
TOKEN_SIDE = 16  # pixels: the VAE's 8 times the transformer's patch of 2


@dataclass(frozen=True)
class WindowSpan:
    """One window. ``start`` and ``stop`` count video frames; the speech of [start, stop) drives it.

    Frames [keep_from, keep_to) of the window itself are new and go into the video, where the first
    of them is frame ``start + keep_from``.
    """

    index: int
    start: int
    stop: int
    keep_from: int
    keep_to: int


def window_plan(
    num_frames: int, frame_num: int, motion_frame: int, max_frame_num: int | None = None
) -> tuple[WindowSpan, ...]:
    """The windows of a video.

    Args:
        num_frames: frames that the speech lasts; the video is cut to them. May be fewer than a window.
        frame_num: frames of a window.
        motion_frame: frames that a window shares with the one before, 1 to frame_num - 1.
        max_frame_num: longest video, or None.

    Raises:
        InputError: the speech is shorter than one frame.
    """
    if num_frames < 1:
        raise InputError(f"The speech is shorter than one video frame ({1000 // FPS} ms); give a longer sound file.")
    total = num_frames if max_frame_num is None else min(num_frames, max_frame_num)
    spans = []
    start, keep_from = 0, 0
    while not spans or spans[-1].stop < total:
        stop = start + frame_num
        spans.append(WindowSpan(len(spans), start, stop, keep_from, min(stop, total) - start))
        start, keep_from = stop - motion_frame, motion_frame
    return tuple(spans)


def latent_frames(frame_num: int) -> int:
    """Latent frames of a window of so many video frames."""
    return (frame_num - 1) // LATENT_FRAMES + 1


def tokens_per_window(frame_num: int, height: int, width: int) -> int:
    """Tokens that the transformer sees for one window of this size (pixels)."""
    return latent_frames(frame_num) * (height // TOKEN_SIDE) * (width // TOKEN_SIDE)


def plan_memory(
    size: TransformerSize,
    settings: Settings,
    height: int,
    width: int,
    itemsize: int,
    free: int | None,
    vae: VaePlan,
) -> tuple[Placement, MemoryEstimate]:
    """What of the transformer stays on the device, and what the run needs then.

    Args:
        settings: resolved.
        height, width: of the video, in pixels.
        itemsize: bytes of a weight and of an activation.
        free: bytes that are free on the device; None if that does not matter.
    """
    tokens = tokens_per_window(settings.frame_num, height, width)
    passes = len(guidance_branches(settings.sample_text_guide_scale, settings.sample_audio_guide_scale))

    def estimate(placement: Placement) -> MemoryEstimate:
        counts = size, placement, tokens, passes, height * width, itemsize
        return estimate_memory(*counts, settings.use_teacache, vae, bool(settings.offload_model), settings.attention)

    placement = place_blocks(size, settings.num_persistent_param_in_dit, settings.blocks_to_swap, estimate, free)
    return placement, estimate(placement)


@dataclass(frozen=True)
class Plan:
    """Everything that --dry_run tells.

    ``computes`` names the device and what it computes with, ``speech_frames`` is how long the speech lasts,
    ``passes`` are those of each step, ``weights`` are sentences about how the transformer's matrices are kept and
    what LoRAs do to them.
    """

    computes: str
    height: int
    width: int
    speech_frames: int
    spans: tuple[WindowSpan, ...]
    passes: tuple[int, ...]
    tokens: int
    memory: MemoryEstimate
    placement: Placement
    blocks: int
    weights: tuple[str, ...] = ()

    @property
    def frames(self) -> int:
        """Frames of the video."""
        return self.spans[-1].start + self.spans[-1].keep_to

    @property
    def forwards(self) -> int:
        """Passes through the transformer, all windows together."""
        return len(self.spans) * sum(self.passes)


def describe(plan: Plan) -> str:
    """The plan as lines of text."""
    first = plan.spans[0]
    window = f"{len(plan.spans)} of {first.stop - first.start} frames"
    if len(plan.spans) > 1:
        window += f", the next one {plan.spans[1].start} frames later each time"
    lines = {
        "device": plan.computes,
        "picture": f"{plan.width}x{plan.height}",
        "video": f"{plan.frames} frames, {plan.frames / FPS:.2f} s at {FPS} a second",
        "windows": window,
        "a window": f"{plan.tokens} tokens, {_steps(plan.passes)}",
        "in all": f"{plan.forwards} passes through the transformer",
        "memory": (
            f"about {plan.memory.peak / GIB:.1f} GiB on the device for the transformer and the VAE (estimate: weights "
            f"{plan.memory.weights / GIB:.1f}, keys and values {plan.memory.contexts / GIB:.1f}, "
            f"a step {plan.memory.activations / GIB:.1f}, the VAE {plan.memory.vae / GIB:.1f}); "
            f"{plan.placement.resident} of {plan.blocks} blocks stay there"
        ),
    }
    notice = cut_notice(plan.speech_frames, plan.frames)
    notes = [*plan.weights, *([notice] if notice else [])]
    return "\n".join(f"{name:<10}{text}" for name, text in [*lines.items(), *(("note", note) for note in notes)])


def _steps(passes: tuple[int, ...]) -> str:
    def of(count: int) -> str:
        return f"of {count} pass{'es' * (count > 1)}"

    first, last = passes[0], passes[-1]
    if first == last:
        return f"{len(passes)} steps {of(first)}"
    return f"{len(passes)} steps, {passes.count(first)} {of(first)} and {passes.count(last)} {of(last)}"


def cut_notice(speech_frames: int, frames: int) -> str:
    """What to tell when the video ends before the speech does, else nothing."""
    if frames >= speech_frames:
        return ""
    return (
        f"--max_frame_num or --mode clip ends the video after {frames / FPS:.2f} s; "
        f"the speech lasts {speech_frames / FPS:.2f} s."
    )
