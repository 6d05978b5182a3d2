"""Classifier-free guidance by text and by speech, plain and projected.

Branches: ``cond`` hears the speech and reads the prompt, ``drop_text`` reads the negative prompt
instead, ``drop_audio`` hears nothing (zero features), ``uncond`` neither. Formulas are upstream's
(wan/multitalk.py); branches that cannot change the result are left out. Guidance by the speech can end after
some steps, which then save a branch: the guides use it wherever its branch is among the predictions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from ..settings.definition import Settings
from ..settings.validation import text_scales

Branch = Literal["cond", "drop_text", "drop_audio", "uncond"]


def is_off(scale: float) -> bool:
    """A guidance scale of 1 leaves the prediction as it is."""
    return math.isclose(scale, 1.0)


def guidance_branches(text_scale: float, audio_scale: float) -> tuple[Branch, ...]:
    """The branches that must be predicted, in upstream's order."""
    if is_off(text_scale):
        return ("cond",) if is_off(audio_scale) else ("cond", "drop_audio")
    return ("cond", "drop_text") if is_off(audio_scale) else ("cond", "drop_text", "uncond")


def branches_of_steps(
    text_scales: Sequence[float], audio_scale: float, audio_steps: int | None = None
) -> tuple[tuple[Branch, ...], ...]:
    """The branches of each step.

    Args:
        text_scales: the guidance by the prompt in each step.
        audio_steps: the first steps, which have guidance by the speech; None: all.
    """
    first = len(text_scales) if audio_steps is None else audio_steps
    return tuple(
        guidance_branches(text_scale, audio_scale if step < first else 1.0)
        for step, text_scale in enumerate(text_scales)
    )


def branches_of(settings: Settings) -> tuple[tuple[Branch, ...], ...]:
    """The branches of each step that is taken."""
    return branches_of_steps(
        text_scales(settings), settings.sample_audio_guide_scale, settings.sample_audio_guide_steps
    )


def most_passes(settings: Settings) -> int:
    """Passes through the transformer in the step that has most of them."""
    return max(map(len, branches_of(settings)))


@dataclass(frozen=True)
class ClassifierFreeGuidance:
    """``uncond + text (cond - drop_text) + audio (drop_text - uncond)``; with text scale 1,
    ``drop_audio + audio (cond - drop_audio)``."""

    text_scale: float
    audio_scale: float

    def __call__(self, predictions: dict[Branch, torch.Tensor]) -> torch.Tensor:
        cond = predictions["cond"]
        if is_off(self.text_scale):
            if "drop_audio" not in predictions:
                return cond
            drop_audio = predictions["drop_audio"]
            return drop_audio + self.audio_scale * (cond - drop_audio)
        drop_text = predictions["drop_text"]
        if "uncond" not in predictions:
            return drop_text + self.text_scale * (cond - drop_text)
        uncond = predictions["uncond"]
        return uncond + self.text_scale * (cond - drop_text) + self.audio_scale * (drop_text - uncond)


@dataclass(frozen=True)
class AdaptiveProjectedGuidance:
    """Guidance differences with momentum, limited in norm, orthogonal to the prediction.

    Sadat et al. 2024, arXiv 2410.02416. Keeps a running difference per kind of guidance, so make a
    new one for every window.

    Args:
        momentum: weight of past differences (upstream: -0.75).
        norm_threshold: longest difference allowed, over the whole tensor; 0 for no limit (upstream: 55).
    """

    text_scale: float
    audio_scale: float
    momentum: float
    norm_threshold: float
    _running: dict[str, torch.Tensor] = field(default_factory=dict)

    def __call__(self, predictions: dict[Branch, torch.Tensor]) -> torch.Tensor:
        cond = predictions["cond"]
        result = cond
        if not is_off(self.text_scale):
            difference = cond - predictions["drop_text"]
            result = result + (self.text_scale - 1) * self._projected("text", difference, cond)
        heard: Branch = "cond" if is_off(self.text_scale) else "drop_text"
        silent: Branch = "drop_audio" if is_off(self.text_scale) else "uncond"
        if silent in predictions:
            difference = predictions[heard] - predictions[silent]
            result = result + (self.audio_scale - 1) * self._projected("audio", difference, cond)
        return result

    def _projected(self, kind: str, difference: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        if kind in self._running:
            difference = difference + self.momentum * self._running[kind]
        self._running[kind] = difference
        if self.norm_threshold > 0:
            difference = difference * torch.clamp(self.norm_threshold / difference.norm(), max=1.0)
        # Like upstream in float64: the parallel part is a small number times a long vector.
        direction = cond.double() / cond.double().norm()
        parallel = (difference.double() * direction).sum() * direction
        return (difference.double() - parallel).to(difference.dtype)
