"""How a drawn person moves while speaking: poses for every frame from the mouth's curves and a seed.

The mouth follows the speech, a nod and the brows follow its slow loudness; head, gaze and blinks are
chance. Every timeline begins with the portrait: still, neutral, eyes open. Knows nothing of pictures.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from .drawing import Pose
from .prompts import ASIDE, SAD, SMILING, SURPRISED

FIELDS = (
    *("opening", "width", "smile", "round", "brows", "sorrow", "eyes", "gaze_x", "gaze_y"),
    *("x", "y", "roll", "yaw", "breath"),
)
_MOODS = {
    SMILING: {"smile": 0.95, "eyes": -0.1, "brows": 0.1},
    SAD: {"smile": -0.9, "sorrow": 1.0, "eyes": -0.2, "gaze_y": 0.3},
    SURPRISED: {"brows": 1.0, "eyes": 0.28, "round": 1.0},
    ASIDE: {"gaze_x": -1.0, "yaw": -0.9},
}
_BLINK = (0.55, 0.1, 0.0, 0.15, 0.6, 0.9)
_LEAVE, _MOOD_COMES = 4, 14  # frames from the portrait into motion, and into a mood


def portrait_pose(count: int, device: torch.device | str = "cpu") -> Pose:
    """The still face that a video begins with, one frame each."""
    pose = {name: torch.zeros(count, 1, device=device) for name in FIELDS}
    pose["eyes"] = pose["eyes"] + 1
    pose["width"] = pose["width"] + 0.45
    return pose


def timeline(seeds: list[int], opening: torch.Tensor, width: torch.Tensor, moods: list[int]) -> Pose:
    """Poses [people, frames] on the curves' device.

    Args:
        seeds: of chance, one a person.
        opening, width: of the mouth, [people, frames] in [0, 1].
        moods: one a person, see ``prompts``.
    """
    frames, device = opening.shape[1], opening.device
    chance = [_chance(seed, frames) for seed in seeds]
    drawn = {name: torch.stack([one[name] for one in chance]).to(device) for name in chance[0]}
    start = torch.arange(frames, device=device)
    leave = (start / _LEAVE).clamp(max=1)
    coming = (start / _MOOD_COMES).clamp(max=1)
    coming = coming * coming * (3 - 2 * coming)
    slow = F.avg_pool1d(F.pad(opening[:, None], (12, 12), mode="replicate"), 25, 1)[:, 0] - 0.3

    def mood(name: str) -> torch.Tensor:
        values = [_MOODS.get(one, {}).get(name, 0.0) for one in moods]
        return torch.tensor(values, device=device)[:, None] * drawn["strength"] * coming

    rest = 1 - leave
    eyes = torch.minimum(1 + mood("eyes"), (1 + mood("eyes")) * drawn["blink"])
    return {
        "opening": opening * leave,
        "width": width * leave + 0.45 * rest,
        "smile": mood("smile") + 0.06 * drawn["smile"] * leave,
        "round": mood("round"),
        "brows": mood("brows") + (0.45 * slow + 0.08 * drawn["brows"]) * leave,
        "sorrow": mood("sorrow"),
        "eyes": eyes * leave + rest,
        "gaze_x": mood("gaze_x") + drawn["gaze_x"] * leave,
        "gaze_y": mood("gaze_y") + drawn["gaze_y"] * leave,
        "x": (0.03 * drawn["x"]) * leave,
        "y": (0.016 * drawn["y"] + 0.05 * slow) * leave,
        "roll": 0.05 * drawn["roll"] * leave,
        "yaw": mood("yaw") + 0.35 * drawn["yaw"] * leave,
        "breath": 0.006 * drawn["breath"] * leave,
    }


def _chance(seed: int, frames: int) -> dict[str, torch.Tensor]:
    """What happens by chance in one timeline, each [frames]."""
    generator = torch.Generator().manual_seed(7_000_003 * (seed + 1))

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(shape, generator=generator)

    times = torch.arange(frames) / 25

    def wave(low: float, high: float) -> torch.Tensor:
        """A sum of three slow sines of about unit size that is 0 at the beginning."""
        rates, phases = low + (high - low) * uniform(3, 1), 2 * math.pi * uniform(3, 1)
        swing = (2 * math.pi * rates * times + phases).sin() - phases.sin()
        return (swing * torch.tensor([[0.6], [0.35], [0.25]])).sum(dim=0)

    blink, at = torch.ones(frames), int(25 * (0.4 + 2.5 * uniform(1)))
    while at < frames:
        shape = torch.tensor(_BLINK)[: frames - at]
        blink[at : at + len(shape)] = shape
        at += int(25 * (1.8 + 3.2 * uniform(1)))
    saccades = ((uniform(frames // 20 + 1, 2) - 0.5) * torch.tensor([0.5, 0.3])).repeat_interleave(20, dim=0)[:frames]
    saccades[:10] = 0
    return {
        "strength": (0.85 + 0.25 * uniform(1)).expand(frames),
        "blink": blink,
        "gaze_x": saccades[:, 0],
        "gaze_y": saccades[:, 1],
        "breath": wave(0.2, 0.3),
        **{name: wave(0.08, 0.45) for name in ("x", "y", "roll", "yaw", "smile", "brows")},
    }
