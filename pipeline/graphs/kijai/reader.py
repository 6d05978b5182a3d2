"""Graphs of ComfyUI-WanVideoWrapper (Kijai's nodes) for InfiniteTalk as settings.

Starts at the sampler. What means the same becomes a setting; what only costs time or memory, or is done in
another way here, is left out with a note; what would make another video is refused by name. Two formulas of
that pack (version 1.4.7) differ and are converted: its schedule "multitalk", and guidance by text and speech at
once. Knows samplers and schedules; ``kijai_model`` and ``kijai_inputs`` know what goes into them.
"""

from __future__ import annotations

from collections.abc import Callable

from ...export.exported import Exported, Files
from ...facts.solvers import SOLVERS
from ...settings.definition import Settings
from ...settings.roles import Values
from ...settings.validation import validate
from ..foreign import arithmetic, conditioning, media
from ..foreign.conditioning import of_kind
from ..graph import Graph, Node, feeding, is_placeholder, linked, number, refusal, text, value, whole
from ..notes import UNFILLED, Notes
from ..orders import with_names
from .inputs import frame_settings, speech_settings, text_settings
from .model import model_settings
from .schedules import ORDERS as LISTS
from .schedules import text_guidance
from .widgets import KIJAI_ORDERS

SAMPLERS = ("WanVideoSampler", "WanVideoSamplerv2", "WanVideoSamplerFromSettings")

# their scheduler -> our solver, and what differs
_SOLVERS = {theirs: (row.name, told) for row in SOLVERS.values() for theirs, told in row.kijai.items()}
_MULTITALK_STEPS = 4  # of their schedule of this name
_NO_EQUIVALENT = {
    "samples": "starting from the latents of another video",
    "sigmas": "noise levels by hand",
    "feta_args": "Enhance-A-Video",
    "context_options": "context windows",
    "flowedit_args": "FlowEdit",
    "slg_args": "skip layer guidance",
    "loop_args": "loop arguments",
    "experimental_args": "experimental arguments",
    "unianimate_poses": "UniAnimate poses",
    "fantasytalking_embeds": "FantasyTalking",
    "uni3c_embeds": "Uni3C",
    "freeinit_args": "FreeInit",
}
_MUST_BE = {"riflex_freq_index": 0}
_INPUTS: dict[str, Callable[[Graph, Node, Files, Notes], Values]] = {
    "text_embeds": text_settings,
    "model": model_settings,
    "image_embeds": frame_settings,
    "multitalk_embeds": speech_settings,
}
_CACHES = ("cache_args", "teacache_args")  # the second until summer 2025
_ONLY_SPEED = (
    "Left out, since they change time, memory or the last digits only: devices and precisions of the VAE and the "
    "encoders, tiling, merging of LoRAs, non-blocking copies, rope_function, batched_cfg."
)
_SILENCE = "multitalk/encoded_silence.safetensors"
_MOTION_FRAME, _AUDIO_SCALE = 9, 2  # what the guide suggests, the second for runs with a LoRA


def read(graph: Graph, sampler: str, files: Files) -> Exported:
    """The settings of a sampler of these nodes.

    Raises:
        InputError: something in the graph has no equivalent, or is missing.
    """
    graph = with_names(graph, {**media.ORDERS, **arithmetic.ORDERS, **conditioning.ORDERS, **LISTS, **KIJAI_ORDERS})
    owner = graph.nodes[sampler]
    parts, notes = _parts(graph, owner), Notes()
    values = _sampling(graph, parts, notes)
    for slot, settings_of in _INPUTS.items():
        with notes.part():
            values |= settings_of(graph, linked(graph, _holder(parts, slot), slot), files, notes)
    settings = Settings.of(values)
    with notes.part():
        settings = _with_guidance(graph, parts, settings, notes)
    with notes.part():
        settings = settings.replace(**media.output(graph, owner, settings.audio, files, notes))
    with notes.part():
        validate(settings)
    notes.check(graph.name)
    _say_unfilled(settings, notes)
    _advise(settings, notes)
    settings = _with_silence(settings, files, notes)
    notes.precision("how weights, VAE and encoders are stored and LoRAs merged", _ONLY_SPEED)
    notes.extend(media.idle(graph, owner))
    return Exported(settings, (*notes.said, *files.notes()), notes.take)


def _parts(graph: Graph, sampler: Node) -> tuple[Node, ...]:
    """The nodes that together have the sampler's inputs; what an earlier one says counts."""
    if sampler.kind == "WanVideoSamplerFromSettings":
        sampler = of_kind(graph, sampler, "sampler_inputs", "WanVideoSamplerSettings")
    if sampler.kind == "WanVideoSamplerv2":
        extra = ("extra_args",) if "extra_args" in sampler.links else ()
        return (
            of_kind(graph, sampler, "scheduler", "WanVideoSchedulerv2"),
            *(of_kind(graph, sampler, slot, "WanVideoSamplerExtraArgs") for slot in extra),
            sampler,
        )
    schedule = feeding(graph, sampler, "scheduler")
    return (sampler,) if schedule is None or schedule.kind != "WanVideoScheduler" else (schedule, sampler)


def _holder(parts: tuple[Node, ...], name: str) -> Node:
    """The part that has an input or a widget; the sampler if none has."""
    return next((part for part in parts if name in part.values or name in part.links), parts[-1])


def _sampling(graph: Graph, parts: tuple[Node, ...], notes: Notes) -> Values:
    sampler = parts[-1]
    for slot, what in _NO_EQUIVALENT.items():
        if slot in (holder := _holder(parts, slot)).links:
            notes.refuse(refusal(graph, holder, f"{slot} ({what}) has no equivalent here; unlink it"))
    for name, usual in _MUST_BE.items():
        with notes.part():
            found = number(graph, holder := _holder(parts, name), name, usual)
            if found != usual:
                raise refusal(graph, holder, f"{name} is {found:g}, which has no equivalent here; set it to {usual}")
    with notes.part():
        if value(graph, holder := _holder(parts, "enhance_hf"), "enhance_hf", False):
            raise refusal(graph, holder, "enhance_hf has no equivalent here; switch it off")
    values: Values = {"noise": "kijai"}
    with notes.part():
        steps = values["sample_steps"] = whole(graph, _holder(parts, "steps"), "steps")
        values |= _steps_taken(graph, parts, steps)
    with notes.part():
        values |= _solver(graph, _holder(parts, "scheduler"), notes)
    with notes.part():
        values["sample_shift"] = float(number(graph, _holder(parts, "shift"), "shift"))
    with notes.part():
        values |= text_guidance(graph, sampler)
    with notes.part():
        values["base_seed"] = conditioning.seed(graph, sampler, "seed", notes)
    with notes.part():
        values["offload_model"] = bool(value(graph, sampler, "force_offload", True))
    with notes.part():
        values |= _cache(graph, parts, notes)
    return values


def _solver(graph: Graph, holder: Node, notes: Notes) -> Values:
    scheduler = text(graph, holder, "scheduler")
    if scheduler not in _SOLVERS:
        offered = ", ".join(_SOLVERS)
        raise refusal(graph, holder, f"scheduler {scheduler} has no equivalent here; choose one of {offered}")
    solver, difference = _SOLVERS[scheduler]
    if difference:
        notes.other(
            f"nothing is known to run scheduler {scheduler}, so nothing was compared",
            f"{holder}: scheduler {scheduler} became --sample_solver {solver}: {difference}.",
        )
    steps = {"sample_steps": _MULTITALK_STEPS} if scheduler == "multitalk" else {}
    return {"sample_solver": solver, **steps}


def _steps_taken(graph: Graph, parts: tuple[Node, ...], steps: int) -> Values:
    """Which of the steps are taken: by number, or by how much of the noise is there in the beginning."""
    start = whole(graph, _holder(parts, "start_step"), "start_step", 0)
    end = whole(graph, _holder(parts, "end_step"), "end_step", -1)
    strength = number(graph, holder := _holder(parts, "denoise_strength"), "denoise_strength", 1)
    if strength < 1:
        if start:
            raise refusal(graph, holder, "denoise_strength and start_step both say where it begins; set one of them")
        start = max(0, steps - int(steps * strength) - 1)
    return {"sample_start_step": start, **({} if end == -1 else {"sample_end_step": end})}


def _cache(graph: Graph, parts: tuple[Node, ...], notes: Notes) -> Values:
    sources = [feeding(graph, _holder(parts, slot), slot) for slot in _CACHES]
    for source in sources:
        if source is not None and source.kind == "WanVideoTeaCache":
            notes.other(
                "its TeaCache skips other steps",
                f"{source}: became --use_teacache with its threshold; start_step and end_step are left out, TeaCache "
                "never skips in the first 5 steps here.",
            )
            return {"use_teacache": True, "teacache_thresh": float(number(graph, source, "rel_l1_thresh"))}
        if source is not None:
            notes.other("it skips steps", f"{source}: this way of skipping steps is left out; all steps are computed.")
    return {}


def _with_guidance(graph: Graph, parts: tuple[Node, ...], settings: Settings, notes: Notes) -> Settings:
    """These nodes multiply the guidance by speech by that by text where both are on; upstream does not."""
    by_text, by_speech = settings.sample_text_guide_scale, settings.sample_audio_guide_scale
    if by_speech != 1:
        notes.other("until the end of 2025 that pack used audio_cfg_scale otherwise, and not at all with cfg 1")
    if 1 in (by_text, by_speech):
        return settings
    holder = _holder(parts, "batched_cfg")
    if value(graph, holder, "batched_cfg", False):
        raise refusal(graph, holder, "batched_cfg makes it ignore audio_cfg_scale; switch it off, or set that to 1")
    notes.append(
        f"audio_cfg_scale {by_speech:g} became --sample_audio_guide_scale {by_text * by_speech:g}: these nodes "
        "multiply it by a cfg other than 1, upstream and this command do not."
    )
    return settings.replace(sample_audio_guide_scale=round(by_text * by_speech, 4))


def _with_silence(settings: Settings, files: Files, notes: Notes) -> Settings:
    """With that pack's stored silence, where the pack is."""
    stored = files.pack_file(_SILENCE)
    if stored is None:
        notes.near(
            "the sound of silence behind the end of the speech",
            f"Behind the end of the speech that pack hears what it has in {_SILENCE}: --silence FILE gives it, else "
            "silence is computed, and the last window is another by a little.",
        )
    return settings.replace(silence=stored)


def _say_unfilled(settings: Settings, notes: Notes) -> None:
    """Placeholders that the command has as they are."""
    for name in ("image", "video", "audio", "prompt"):
        found = getattr(settings, name)
        if found is not None and is_placeholder(str(found)):
            notes.near(UNFILLED, f"--{name} is {found}: put in what a program fills in there.")


def _advise(s: Settings, notes: Notes) -> None:
    """Where the guide suggests another value than the graph has."""
    if s.motion_frame != _MOTION_FRAME:
        notes.append(
            f"--motion_frame {s.motion_frame} is the graph's. The guide suggests {_MOTION_FRAME}, which makes "
            f"{'fewer' if s.motion_frame > _MOTION_FRAME else 'more'} windows for the same video."
        )
    if s.lora_dir and s.sample_audio_guide_scale == 1:
        notes.append(
            f"--sample_audio_guide_scale 1 is the graph's. The guide suggests {_AUDIO_SCALE} with a LoRA: lips follow "
            "the speech more, for one pass more in each step."
        )
