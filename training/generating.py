"""Generates with the network in training, many people at once, and measures what comes out.

The engine is what users run and what the final figures come from; this is the quick look between steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..pipeline.evaluation.reader import FaceReader, read_frames
from ..pipeline.models.image_encoder import ImageEncoder
from ..pipeline.models.text.encoder import TextEncoder
from ..pipeline.sampling.schedules import upstream_schedule
from .clips import FRAMES, MOTION_FRAMES, SIDE, Scenes, draw_portraits, make_scenes
from .frozen import padded
from .latents import reference_channels, speech_windows, still_latents
from .prompts import CALM, HELD_OUT, MOODS
from .speech_encoder import correlation
from .speech_encoder import encode as encode_speech
from .transformer_network import Conditions, Network
from .vae_network import Whole

_HELD_OUT_PEOPLE = 900_000


@dataclass(frozen=True)
class Trial:
    """People and speech never trained on, made ready.

    Attributes:
        given: conditions of their first windows.
        features: of their whole speech, [people, frames, layers, channels].
    """

    scenes: Scenes
    portraits: torch.Tensor
    given: Conditions
    features: torch.Tensor


@torch.no_grad()
def make_trial(
    count: int,
    speech: torch.Tensor,
    whole: Whole,
    hearing: torch.nn.Module,
    sight: ImageEncoder,
    reading: TextEncoder,
    moods: list[int] | None = None,
    side: int = SIDE,
    frames: int = FRAMES,
) -> Trial:
    moods = moods or [CALM] * count
    scenes = make_scenes([_HELD_OUT_PEOPLE + k for k in range(count)], speech, moods, clean=True)
    portraits = draw_portraits(scenes.person, side)
    still = torch.cat([still_latents(whole, one) for one in portraits])
    texts = torch.stack(
        [padded(one) for one in reading.encode([HELD_OUT[mood][k % 2] for k, mood in enumerate(moods)])]
    )
    features = encode_speech(hearing, scenes.heard)
    windows = speech_windows(features, torch.zeros(count, device=speech.device).long(), frames)
    given = Conditions(
        reference_channels(still, 1 + frames // 4),
        texts,
        torch.stack([sight.encode(one) for one in portraits]),
        windows,
    )
    return Trial(scenes, portraits, given, features)


@torch.no_grad()
def generate(
    network: Network, given: Conditions, steps: int, shift: float, held: torch.Tensor | None = None, seed: int = 0
) -> torch.Tensor:
    """Latents [n, 16, T, h, w] by Euler steps without guidance; ``held`` are motion latents, else the portrait's."""
    held = given.reference[:, 4:, :1] if held is None else held
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(given.reference[:, 4:].shape, generator=generator).to(held.device)
    latents[:, :, : held.shape[2]] = held
    levels = upstream_schedule(steps, shift).levels.tolist()
    for level, following in zip(levels, levels[1:], strict=False):
        timesteps = torch.full((len(latents),), level * 1000, device=latents.device)
        latents = latents - network(latents, timesteps, given) * (level - following)
        latents[:, :, : held.shape[2]] = held
    return latents


@torch.no_grad()
def pixels(whole: Whole, latents: torch.Tensor) -> torch.Tensor:
    """Frames [n, 3, frames, H, W] in [-1, 1]."""
    return torch.cat([whole.frames(one[None]) for one in latents])


@torch.no_grad()
def measure(trial: Trial, video: torch.Tensor, reader: FaceReader, name: str) -> torch.Tensor:
    """Print lip-sync, motion, colour and background of a first window; returns the frames."""
    count, _, frames = video.shape[:3]
    curves = [read_frames(reader, one.transpose(0, 1)) for one in video]
    opening = torch.stack([one["opening"] for one in curves])
    true = trial.scenes.pose["opening"][:, :frames]
    rs = [correlation(opening[k, 4:], true[k, 4:]) for k in range(count)]
    wrong = [correlation(opening[k, 4:], true[(k + 1) % count, 4:]) for k in range(count)]
    error = float((opening - true).abs().mean())
    wanted = trial.scenes.pose
    motion = {name: float(torch.stack([one[name][10:].std() for one in curves]).mean()) for name in ("x", "y")}
    drawn = {name: float(wanted[name][:, 10:frames].std(dim=1).mean()) for name in motion}
    drift = (video[:, :, -10:].mean(dim=(2, 3, 4)) - trial.portraits.mean(dim=(2, 3))).abs() * 127.5
    corner = torch.cat([video[..., :20, :16], video[..., :20, -16:]], dim=-1)
    still = torch.cat([trial.portraits[..., :20, :16], trial.portraits[..., :20, -16:]], dim=-1)
    background = 10 * torch.log10(4 / (corner - still[:, :, None]).square().mean())
    print(
        f"{name}: r {' '.join(f'{r:.3f}' for r in rs)}; mean {sum(rs) / count:.3f}; other speech "
        f"{sum(wrong) / count:.3f}; error {error:.3f}; motion x {motion['x']:.4f} (drawn {drawn['x']:.4f}) "
        f"y {motion['y']:.4f} (drawn {drawn['y']:.4f}); "
        f"drift {drift.mean():.1f} max {drift.max():.1f}; corners {background:.1f} dB",
        flush=True,
    )
    late = slice(30, frames)
    for field, mood in (
        ("smile", "smiling"),
        ("smile", "sad"),
        ("sorrow", "sad"),
        ("brows", "surprised"),
        ("gaze_x", "looking aside"),
    ):
        chosen = [k for k, m in enumerate(trial.scenes.moods) if MOODS[m] == mood]
        if chosen and min(trial.scenes.moods) != max(trial.scenes.moods):
            rest = [k for k in range(count) if k not in chosen]
            values = [
                float(torch.stack([curves[k][field][late].mean() for k in group]).mean()) for group in (chosen, rest)
            ]
            print(f"{name}: asked {mood}: {field} {values[0]:.2f}, others {values[1]:.2f}", flush=True)
    return video


def second_window(trial: Trial) -> Conditions:
    """Conditions of the windows after the first."""
    frames = trial.given.speech.shape[1]
    start = torch.full((len(trial.features),), frames - MOTION_FRAMES, device=trial.features.device)
    return replace(trial.given, speech=speech_windows(trial.features, start, frames))
