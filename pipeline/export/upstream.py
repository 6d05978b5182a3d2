"""Settings as a command for MeiGen's own generate_infinitetalk.py (its state of August 2025), with its JSON of inputs.

What it cannot express is said in comments before the command. Knows upstream's flags and what it does with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..facts.buckets import target_size
from ..facts.shares import is_share
from ..facts.solvers import SOLVERS
from ..job.speakers import SIDES, Box, Half, Speaker, parse_speaker
from ..settings.definition import NEGATIVE_PROMPT, PIXELS_480, Settings, names_with, setting_infos
from ..settings.flags import value_to_text
from ..settings.roles import Json, Role, Value, Values
from ..settings.validation import resolve
from .command import PROGRAM, Command, comment, json_name, line, write_json
from .exported import Exported

SIZES = ("infinitetalk-480", "infinitetalk-720")
_LARGEST_SEED = 2**32 - 1  # it also seeds numpy
_UNLIMITED = 1_000_000  # frames, eleven hours
_WEIGHTS = Path("weights")
# what needs no word where upstream has no such flag: its JSON has the texts and files, how it computes is its machine's
# affair, and the others say nothing about the video
_NEEDLESS = Role.JOB | Role.RUN | Role.MACHINE | Role.UNREAD | Role.LATER | Role.UNSAID


@dataclass(frozen=True)
class _Said:
    """A flag's changed value, and why; or only why."""

    comment: str = ""
    changes: tuple[tuple[str, Value], ...] = ()


def upstream_command(exported: Exported, shell: str, full: bool = False) -> Command:
    """The command for upstream's script, run in its folder.

    Args:
        full: every flag that has a value, not only those that differ from upstream's defaults.

    Raises:
        InputError: a path that the shell cannot hand over.
    """
    run = upstream_run(exported, full)
    comments = [comment(said) for said in run.differences]
    text = [*comments, write_json(str(run.inputs), run.entries, shell), line(PROGRAM, run.argv, shell)]
    return Command("\n".join(text), exported.notes, shell)


@dataclass(frozen=True)
class UpstreamRun:
    """What upstream's script is given.

    Attributes:
        argv: its flags.
        inputs: the JSON file that they name.
        entries: what is to be in it.
        differences: sentences on what it does otherwise.
    """

    argv: list[str]
    inputs: Path
    entries: dict[str, Json]
    differences: tuple[str, ...]


def upstream_run(exported: Exported, full: bool = False) -> UpstreamRun:
    """What to give to upstream's script, run in its folder; see ``upstream_command``."""
    settings = resolve(_with_paths(exported.settings))
    said = [*_differences(settings)]
    values = {name: getattr(settings, name) for name in names_with(Role.UPSTREAM)}
    for one in said:
        values |= dict(one.changes)
    inputs = Path(json_name(settings))
    values |= {"input_json": inputs, "save_file": _without_mp4(settings.save_file)}
    entries: dict[str, Json] = {
        "prompt": settings.prompt,
        "cond_video": _text(settings.image or settings.video),
        **_said_by(settings),
    }
    return UpstreamRun(_argv(values, full), inputs, entries, tuple(one.comment for one in said if one.comment))


def _said_by(s: Settings) -> dict[str, Json]:
    """The entries of its JSON for one voice, or for two."""
    pair = _pair(s)
    if pair is None:
        return {"cond_audio": {"person1": _text(s.audio)}}
    names = ("person1", "person2")
    entries: dict[str, Json] = {
        "audio_type": s.audio_type or "para",
        "cond_audio": {
            name: "None" if not isinstance(one.speech, Path) else _text(one.speech)
            for name, one in zip(names, pair, strict=True)
        },
    }
    boxes = [one.region for one in pair if isinstance(one.region, Box)]
    if boxes:  # it reads rows first
        numbers = [[int(box.top), int(box.left), int(box.bottom), int(box.right)] for box in boxes]
        entries["bbox"] = {name: list(four) for name, four in zip(names, numbers, strict=True)}
    return entries


def _pair(s: Settings) -> tuple[Speaker, Speaker] | None:
    """The two speakers, if it can have them so: the left one and the right one, or a box for each."""
    speakers = tuple(map(parse_speaker, s.speaker or ()))
    if len(speakers) != 2 or s.timeline is not None or s.bind == "region":
        return None
    halves = [Half(side) for side in SIDES]
    regions = [speaker.region for speaker in speakers]
    alike = regions in ([None, None], halves) or all(isinstance(region, Box) for region in regions)
    return (speakers[0], speakers[1]) if alike else None


def _text(path: Path | None) -> str:
    return "" if path is None else path.as_posix()  # upstream looks for "/"


def _without_mp4(path: Path | None) -> Path | None:
    if path is None or path.suffix.lower() != ".mp4":
        return path
    return path.with_suffix("")  # upstream adds it


def _with_paths(settings: Settings) -> Settings:
    """A preset names its files relative to the weights folder, where our own command looks for them."""

    def placed(path: Path) -> Path:
        named = path.is_absolute() or is_share(path) or path.parts[:1] == _WEIGHTS.parts
        return path if named or path.exists() else _WEIGHTS / path

    changes: Values = {}
    if settings.lora_dir is not None:
        changes["lora_dir"] = tuple(placed(path) for path in settings.lora_dir)
    if settings.quant_dir is not None:
        changes["quant_dir"] = placed(settings.quant_dir)
    return settings.replace(**changes)


def _argv(values: Values, full: bool) -> list[str]:
    argv: list[str] = []
    for name, value in values.items():
        if value is None or value is False and name != "offload_model":
            continue
        if not full and value == setting_infos()[name].upstream_default:
            continue
        texts = [value_to_text(single) for single in (value if isinstance(value, tuple) else (value,))]
        if value is True and name != "offload_model":
            argv.append(f"--{name}")
        elif len(texts) == 1 and texts[0].startswith("-"):
            argv.append(f"--{name}={texts[0]}")
        else:
            argv += [f"--{name}", *texts]
    return argv


def _differences(s: Settings) -> Iterator[_Said]:
    """What upstream does otherwise, in the order of importance."""
    yield _Said("For MeiGen's own generate_infinitetalk.py, in its folder. It draws other noise for the same seed.")
    yield from _models(s)
    if not (solver := SOLVERS[s.sample_solver]).upstream:
        yield _Said(
            f"--sample_solver {s.sample_solver} is not there: it runs Euler"
            + (f", whose last of {solver.steps} steps does nearly nothing." if solver.steps else ".")
        )
    if s.size not in SIZES:
        height, width = target_size(s.size, 1, 1)
        near = SIZES[height * width > PIXELS_480]
        said = f"--size {s.size} is not there: {near} keeps the reference's aspect at its own number of pixels."
        yield _Said(said, (("size", near),))
    if s.negative_prompt not in (None, NEGATIVE_PROMPT):
        yield _Said("A negative prompt of one's own is not there: it uses the one the models were tuned with.")
    if (s.speaker or s.timeline) and _pair(s) is None:
        yield _Said("It has two speakers, left and right or a box for each; these are others, and are left out.")
    if s.blocks_to_swap is not None:
        said = f"--blocks_to_swap {s.blocks_to_swap} is not there: --num_persistent_param_in_dit 0 stands for it."
        kept = (("num_persistent_param_in_dit", 0),) if s.blocks_to_swap else ()
        yield _Said(said if s.blocks_to_swap else "", kept)
    if s.max_frame_num is None:
        yield _Said("", (("max_frame_num", _UNLIMITED),))
    if s.base_seed > _LARGEST_SEED:
        yield _Said(f"--base_seed {s.base_seed} is too large for it.", (("base_seed", s.base_seed % 2**32),))
    if s.use_teacache and s.sample_text_guide_scale == 1:
        yield _Said("Its TeaCache counts three passes a step and misjudges the steps where the text guide scale is 1.")
    plain = Settings()
    for name, info in setting_infos().items():
        if not info.roles & (Role.UPSTREAM | _NEEDLESS) and getattr(s, name) != getattr(plain, name):
            yield _Said(f"--{name} {value_to_text(getattr(s, name))} is not there.")


def _models(s: Settings) -> Iterator[_Said]:
    if s.ckpt_dir is None:
        base = _WEIGHTS / "Wan2.1-I2V-14B-480P"
        said = f"It takes the base from a folder as Wan-AI publishes it, whatever file is meant here: {base}."
        yield _Said(said, (("ckpt_dir", base),))
    if s.quant is not None and s.quant_dir is None:
        said = f"--quant {s.quant} without --quant_dir is not there: it reads quantised files only, so it runs bf16."
        yield _Said(said, (("quant", None),))
    elif s.quant is not None:
        yield _Said(
            "It reads --quant_dir only with the .json of the same name and the quantised text encoder beside it."
        )
        if s.lora_dir is not None:
            yield _Said(
                "It ignores --lora_dir where --quant is given: the video is made without the LoRA. Leave out --quant "
                "and --quant_dir to have it."
            )
    if s.wav2vec_dir is not None and s.wav2vec_dir.suffix == ".safetensors":
        yield _Said("It takes --wav2vec_dir as a folder in the layout of chinese-wav2vec2-base, not as a file.")
    if s.lora_dir is None:
        yield _Said("", (("lora_scale", Settings.lora_scale),))
