"""Whether settings are right, and what follows from them.

``validate`` judges values and their combinations, ``resolve`` fills in what follows from other settings. Whether a
file exists or a card is there is for those who open them; nothing heavy is imported.
"""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

from ..errors import InputError
from ..facts.buckets import target_size
from ..facts.resizing import resize_steps
from ..facts.solvers import SCHEDULES, SOLVERS, USUAL_STEPS
from .definition import PIXELS_480, Settings, setting_infos, setting_types
from .presets import load_preset
from .roles import SettingInfo, SettingType, Single, Value

SHIFT_480, SHIFT_720 = 7.0, 11.0
TEACACHE_WARMUP_STEPS = 5
RANDOM_SEEDS = 100_000_000


def validate(settings: Settings) -> Settings:
    """The same settings, judged: types, ranges, choices, combinations, and features that are not there.

    Raises:
        InputError: what is wrong, by the flag's name.
    """
    for name, info in setting_infos().items():
        _check_value(name, getattr(settings, name), info, setting_types()[name])
    _check_combinations(settings)
    source = f"--preset {settings.preset}, " if settings.preset else ""
    for name, info in setting_infos().items():
        if info.refusal and getattr(settings, name) != getattr(Settings, name):
            raise InputError(f"{source}--{name}: {info.refusal}")
    return settings


_KIND_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path"}


def _check_value(name: str, value: Value, info: SettingInfo, expected: SettingType) -> None:
    if value is None and expected.optional:
        return
    values = value if expected.several else (value,)
    if not isinstance(values, tuple) or not values:
        raise InputError(f"--{name}: {value!r} found, one or more values expected.")
    for single in values:
        if not _is_kind(single, expected.kind):
            raise InputError(f"--{name}: {single!r} found, {_KIND_NAMES[expected.kind]} expected.")
        if info.choices and single not in info.choices:
            raise InputError(f"--{name}: {single!r} found, one of {', '.join(info.choices)} expected.")
        if isinstance(single, float) and not math.isfinite(single):
            raise InputError(f"--{name}: {single} found, a finite number expected.")
        number = single if isinstance(single, int | float) else None
        if number is not None and info.min is not None and number < info.min:
            raise InputError(f"--{name}: {single} found, at least {info.min:g} expected.")
        if number is not None and info.max is not None and number > info.max:
            raise InputError(f"--{name}: {single} found, at most {info.max} expected.")


def _is_kind(value: Value, kind: type[Single]) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


def _check_combinations(s: Settings) -> None:
    if (s.frame_num - 1) % 4:
        near = s.frame_num - (s.frame_num - 1) % 4
        raise InputError(f"--frame_num: {s.frame_num} found, 4n+1 expected, for example {near} or {near + 4}.")
    if s.motion_frame >= s.frame_num:
        raise InputError(
            f"--motion_frame: {s.motion_frame} found, fewer than --frame_num ({s.frame_num}) expected; 9 is usual."
        )
    steps = SOLVERS[s.sample_solver].steps
    if steps is not None and s.sample_steps not in (None, steps):
        raise InputError(
            f"--sample_steps: {s.sample_steps} found, but --sample_solver {s.sample_solver} has exactly "
            f"{steps} steps; give --sample_steps {steps} or --sample_solver euler."
        )
    _check_schedule(s)
    if s.window_seeds is not None and s.noise != "comfy":
        raise InputError(f"--window_seeds needs --noise comfy; --noise is {s.noise}.")
    if not steps_taken(s):
        raise InputError(
            f"--sample_start_step: {s.sample_start_step} found, fewer than "
            + ("--sample_steps" if s.sample_end_step is None else "--sample_end_step and --sample_steps")
            + f" ({steps_taken(s).stop}) expected."
        )
    if s.text_guide_schedule is not None and (s.use_apg or s.use_teacache):
        other = "--use_apg" if s.use_apg else "--use_teacache"
        raise InputError(f"--text_guide_schedule does not go with {other}; leave one of them out.")
    if s.num_persistent_param_in_dit is not None and s.blocks_to_swap is not None:
        raise InputError(
            "--num_persistent_param_in_dit and --blocks_to_swap both say what stays on the card; give one of them."
        )
    if s.quant_dir is not None and s.quant is None:
        raise InputError("--quant_dir needs --quant: say whether the file is fp8 or int8.")
    if s.lora_dir is None and s.lora_scale != Settings.lora_scale:
        raise InputError("--lora_scale needs --lora_dir: say which LoRA it is the strength of.")
    if s.lora_dir is not None and len(s.lora_dir) != len(s.lora_scale):
        raise InputError(
            f"--lora_scale: {len(s.lora_scale)} found, one for each file of --lora_dir ({len(s.lora_dir)}) expected."
        )
    if s.output_sound == "voice" and s.separate_voice is None:
        raise InputError("--output_sound voice needs --separate_voice: say which network separates it.")
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", s.device):
        raise InputError(f"--device: {s.device!r} found, auto, cpu, cuda or cuda:N expected.")
    if s.image is not None and s.video is not None:
        raise InputError("--image and --video are both given; there is one reference, give one of them.")
    target_size(s.size, 1, 1)
    resize_steps(s.resize or ())


def _check_schedule(s: Settings) -> None:
    """Whether there is such a schedule of so many steps."""
    solver, steps = SOLVERS[s.sample_solver], steps_of(s)
    if s.sample_schedule is not None and not solver.comfy:
        raise InputError(
            f"--sample_schedule: {s.sample_schedule} found, but --sample_solver {s.sample_solver} has noise levels of "
            "its own; leave it out, or give a solver of ComfyUI's (comfy:...)."
        )
    if not solver.comfy:
        return
    schedule = SCHEDULES[s.sample_schedule or next(iter(SCHEDULES))]
    if steps < (least := max(solver.least, schedule.least)):
        raise InputError(
            f"--sample_steps: {steps} found, but {least} or more expected with --sample_solver {s.sample_solver} and "
            f"--sample_schedule {schedule.name}."
        )
    asked = steps + solver.drops_last
    if (made := schedule.makes(asked)) != asked:
        raise InputError(
            f"--sample_steps: {steps} found, but --sample_schedule {schedule.name} makes {made - solver.drops_last} of "
            "it; give another number or another schedule."
        )


def resolve(settings: Settings) -> Settings:
    """Validated settings with everything filled in that follows from others.

    ``sample_steps`` (40, flowmatch_distill 4), ``sample_shift`` (7 up to 640*960 pixels, 11 above: upstream's
    for 480 and 720, and WIDTHxHEIGHT goes with the nearer), for a negative ``base_seed`` a random one below
    100 000 000, and in clip mode a ``max_frame_num`` of at most one window. Resolving twice changes nothing.

    Raises:
        InputError: see ``validate``.
    """
    s = validate(settings)
    longest = s.max_frame_num
    if s.mode == "clip":
        longest = s.frame_num if longest is None else min(longest, s.frame_num)
    return s.replace(
        sample_steps=steps_of(s),
        sample_shift=shift_of(s),
        base_seed=random.randrange(RANDOM_SEEDS) if s.base_seed < 0 else s.base_seed,
        max_frame_num=longest,
    )


def text_scales(settings: Settings) -> tuple[float, ...]:
    """The guidance by the prompt in each of the steps that are taken."""
    steps, listed = len(steps_taken(settings)), settings.text_guide_schedule or (settings.sample_text_guide_scale,)
    return (*listed, *(listed[-1],) * steps)[:steps]


def steps_of(settings: Settings) -> int:
    """The number of denoising steps: as set, or the solver's own."""
    if settings.sample_steps is not None:
        return settings.sample_steps
    return SOLVERS[settings.sample_solver].steps or USUAL_STEPS


def steps_taken(settings: Settings) -> range:
    """Those of the denoising steps that are taken, by number."""
    count, end = steps_of(settings), settings.sample_end_step
    return range(settings.sample_start_step, count if end is None else min(end, count))


def shift_of(settings: Settings) -> float:
    """The shift of the noise schedule: as set, or that of the size."""
    if settings.sample_shift is not None:
        return settings.sample_shift
    height, width = target_size(settings.size, 1, 1)  # a bucket's square
    return SHIFT_480 if height * width <= PIXELS_480 else SHIFT_720


def warnings_for(settings: Settings) -> tuple[str, ...]:
    """Sentences about resolved settings that are allowed but will not do what they promise."""
    s = settings
    found: list[str] = []
    if not _presets_own_teacache(s):
        found.extend(_idle_teacache(s))
    if s.sample_audio_guide_steps is not None and math.isclose(s.sample_audio_guide_scale, 1):
        found.append("--sample_audio_guide_steps does nothing: --sample_audio_guide_scale is 1, which is off.")
    return tuple(found)


def preset_remarks(settings: Settings) -> tuple[str, ...]:
    """The same about what the preset chose, which a plan tells and a run need not repeat: nobody can mend it."""
    return _idle_teacache(settings) if _presets_own_teacache(settings) else ()


def _idle_teacache(s: Settings) -> tuple[str, ...]:
    steps, first = steps_of(s), TEACACHE_WARMUP_STEPS
    if not s.use_teacache or steps > first:
        return ()
    return (f"--use_teacache cannot speed up {steps} steps: it never skips in the first {first}.",)


def _presets_own_teacache(s: Settings) -> bool:
    """Whether the preset itself switches TeaCache on beside the steps that are asked for."""
    if s.preset is None:
        return False
    own = load_preset(s.preset).as_settings()
    return own.use_teacache and steps_of(own) == steps_of(s)
