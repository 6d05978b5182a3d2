"""``infinitetalk recommend``: which preset to take, by what the video is for and by the card's memory.

Its texts, in English and Chinese, are data in recommend.toml beside it. Knows the presets' data and nothing of cards.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..settings.flags import Parser, to_argv
from ..settings.presets import Preset, load_preset, settings_with_preset
from .console import ask, say

LOW_MEMORY = "05_low_vram"
ENOUGH = 16  # GB; a smaller card is for LOW_MEMORY unless another preset is asked for that fits
_TEXTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
GOALS: dict[str, dict[str, str]] = _TEXTS["goals"]  # goal -> preset, purpose_en, purpose_zh
_PLACES = {"base": "ckpt_dir", "infinitetalk": "infinitetalk_dir", "wav2vec": "wav2vec_dir"}
_WEIGHTS = "weights"


@dataclass(frozen=True)
class Recommendation:
    """A preset, and why it is the one: a sentence each."""

    preset: Preset
    reasons: tuple[str, ...]


def parser() -> Parser:
    """The flags of the command."""
    found = Parser("infinitetalk recommend", "[--goal GOAL] [--vram GB]", "Chooses a preset. Without flags it asks.")
    found.add_argument("--goal", choices=list(GOALS), help="what the video is for (default: balance)")
    found.add_argument("--vram", type=_gigabytes, metavar="GB", help="memory of the card")
    return found


def run(args: argparse.Namespace) -> int:
    """Choose and print.

    Raises:
        InputError: unknown answers; no flags and nobody to ask.
    """
    goal, vram = args.goal, args.vram
    if goal is None and vram is None:
        if sys.stdin is None or not sys.stdin.isatty():
            raise InputError(f"give --goal {{{','.join(GOALS)}}} or --vram GB, or both.")
        goal, vram = asked(ask)
    say(describe_recommendation(recommend(goal, vram)))
    return 0


def recommend(goal: str | None, vram: float | None) -> Recommendation:
    """The preset for a goal (one of ``GOALS``) on a card with so many GB of memory; None: not known."""
    if goal is None:
        goal = "balance"
        if vram is not None and vram < ENOUGH:
            return _for_little_memory(vram, f"The card has {vram:g} GB, less than {ENOUGH}.")
    name, purpose = GOALS[goal]["preset"], GOALS[goal]["purpose_en"]
    preset = load_preset(name)
    needed = preset.about.peak_vram_gb
    if vram is not None and vram < needed:
        return _for_little_memory(
            vram, f"{name} would be for {purpose}, but is meant for {needed} GB; here are {vram:g}."
        )
    memory = "" if vram is None else f" It is meant for {needed} GB; here are {vram:g}."
    return Recommendation(preset, (f"It is for {purpose} ({GOALS[goal]['purpose_zh']}).{memory}",))


def _for_little_memory(vram: float, reason: str) -> Recommendation:
    preset = load_preset(LOW_MEMORY)
    needed = preset.about.peak_vram_gb
    reasons = [reason, f"{LOW_MEMORY} is meant for {needed} GB."]
    if vram < needed:
        reasons.append("With less, take a smaller --size as well, and let --dry_run estimate the memory.")
    return Recommendation(preset, tuple(reasons))


def describe_recommendation(found: Recommendation) -> str:
    """The preset, why, what has to be downloaded beside the base models, and the command to run."""
    preset = found.preset
    settings = preset.as_settings()
    files = [*(settings.lora_dir or ()), *filter(None, [settings.quant_dir])]
    names = ", ".join(f"{_WEIGHTS}/{file.as_posix()}" for file in files)
    needs = [f"needs beside the base models: {names}"] if files else []
    return "\n".join(
        [
            f"{preset.name}: {preset.about.title_en} / {preset.about.title_zh}",
            *(f"  {reason}" for reason in found.reasons),
            *(f"  {line}" for line in needs),
            f"  what it needs and is not here yet: infinitetalk download --preset {preset.name}",
            "",
            command_for(preset),
            "",
            f"or, in a clone: bash run_configs/{preset.name}.sh",
        ]
    )


def command_for(preset: Preset) -> str:
    """A command with the preset; picture, speech and prompt are to be replaced."""
    from ..export.command import line

    weights = {flag: Path(_WEIGHTS, preset.weights[name]) for name, flag in _PLACES.items()}
    inputs = {"image": Path("me.png"), "audio": Path("speech.wav"), "prompt": "A woman is talking."}
    output = Path(preset.about.output_name)
    settings = settings_with_preset(preset.name, **weights, **inputs, save_file=output)
    return line(("infinitetalk",), to_argv(settings), "sh")


def _gigabytes(text: str) -> float:
    try:
        value = float(text.lower().removesuffix("gb").strip())
    except ValueError:
        value = 0.0
    if not 0 < value < 10_000:
        raise InputError(f"--vram: {text!r} found, the card's memory in GB expected, such as 12.")
    return value


def asked(ask: Callable[[str], str]) -> tuple[str | None, float | None]:
    """Goal and memory as the user answers; ``ask`` puts a question and returns the answer."""
    menu = [f"  {n} {goal}: {g['purpose_en']} / {g['purpose_zh']}" for n, (goal, g) in enumerate(GOALS.items(), 1)]
    question = "\n".join([_TEXTS["questions"]["goal"], *menu, f"1-{len(GOALS)} [3]: "])
    answer = ask(question).strip() or "3"
    goals = list(GOALS)
    if answer not in goals:
        if not answer.isdecimal() or not 1 <= int(answer) <= len(goals):
            raise InputError(f"{answer!r} found, a number from 1 to {len(goals)} expected.")
        answer = goals[int(answer) - 1]
    memory = ask(_TEXTS["questions"]["memory"]).strip()
    return answer, _gigabytes(memory) if memory else None
