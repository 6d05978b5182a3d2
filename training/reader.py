"""Trains the network that measures drawn faces (``pipeline/evaluation/reader.py``) on freshly drawn ones.

Half of the frames are blurred and noisy, as a decoder's are. People held out are never drawn here.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
import torch.nn.functional as F

from ..pipeline.evaluation.reader import FIELDS, SIDE, FaceReader
from .drawing import Pose, draw, head_point
from .people import people
from .speech_encoder import correlation
from .training import Clock, Optimizer, graphed_if_possible, save_weights

FILE = "face_reader.safetensors"
_HELD_OUT = 900_000
_SCALES = torch.tensor([0.3, 0.2, 0.4, 0.4, 0.3, 0.3, 0.3, 0.4, 0.07, 0.05, 0.06])  # deviations, to weigh errors alike


def random_poses(count: int, frames: int, device: torch.device) -> Pose:
    """Poses of any kind, wider than timelines have them, and [people, frames] each."""

    def between(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(count, frames, device=device)

    opening = between(-0.25, 1.05).clamp(0, 1)
    mood = (torch.rand(count, frames, device=device) * 4).long()
    amount = between(0, 1.1)
    blink = (torch.rand(count, frames, device=device) < 0.12).float()
    return {
        "opening": opening,
        "width": between(0, 1),
        "smile": (amount * ((mood == 1).float() - (mood == 2).float()) + between(-0.1, 0.1)),
        "round": amount * (mood == 3),
        "brows": amount * (mood == 3) + between(-0.25, 0.25),
        "sorrow": amount * (mood == 2),
        "eyes": (1 + 0.28 * amount * (mood == 3) - 0.2 * amount * (mood == 2)) * (1 - blink * between(0, 1)),
        "gaze_x": between(-1.2, 0.4),
        "gaze_y": between(-0.3, 0.4),
        "x": between(-0.06, 0.06),
        "y": between(-0.05, 0.05),
        "roll": between(-0.12, 0.12),
        "yaw": between(-1.3, 0.6),
        "breath": between(-0.01, 0.01),
    }


def _sample(seeds: list[int], frames: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames [n, 3, 192, 192] and what is to be read off them [n, fields]."""
    person, pose = people(seeds, device), random_poses(len(seeds), frames, device)
    zero = torch.zeros_like(pose["x"])
    x, y = head_point(person, pose, zero, zero)
    truth = {**pose, "x": x, "y": y}
    return draw(person, pose, SIDE).flatten(0, 1), torch.stack([truth[name] for name in FIELDS], dim=-1).flatten(0, 1)


def _spoil(frames: torch.Tensor) -> torch.Tensor:
    """Blur half of the frames and shift colours a little."""
    low = F.interpolate(F.avg_pool2d(frames, 2), scale_factor=2, mode="bilinear")
    mix = torch.rand(len(frames), 1, 1, 1, device=frames.device) * (
        torch.rand(len(frames), 1, 1, 1, device=frames.device) < 0.6
    )
    frames = frames + mix * (low - frames)
    frames = frames + torch.randn_like(frames) * 0.06 * torch.rand(len(frames), 1, 1, 1, device=frames.device)
    return frames + 0.06 * torch.randn(len(frames), 3, 1, 1, device=frames.device)


def train(
    device: torch.device, out: Path, seconds: float, graph: bool = True, count: int = 12, frames: int = 8
) -> None:
    """Train for so many seconds and write ``face_reader.safetensors``, its error in the file's metadata."""
    clock = Clock(seconds, flat=0.4)
    torch.manual_seed(2)
    reader = FaceReader().to(device)
    parameters = list(reader.parameters())
    optimizer = Optimizer([], parameters, 2e-3, average=0.995)
    for p in parameters:
        p.grad = torch.zeros_like(p)
    pictures, truth = _sample(list(range(count)), frames, device)
    scales = _SCALES.to(device)

    def step() -> torch.Tensor:
        torch._foreach_zero_([p.grad for p in parameters])
        loss = F.smooth_l1_loss(reader(pictures) / scales, truth / scales, beta=0.2)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run, number, last_print = None, 0, time.monotonic()
    while clock.part() < 1:
        fresh = _sample([10_000 + number * count + k for k in range(count)], frames, device)
        pictures.copy_(_spoil(fresh[0]))
        truth.copy_(fresh[1])
        optimizer.scale.fill_(clock.rate(number))
        run = run or graphed_if_possible(step, graph and device.type == "cuda")
        loss = run()
        number += 1
        if time.monotonic() - last_print > max(5.0, seconds / 10):
            last_print = time.monotonic()
            print(f"reader: {clock.elapsed():.0f} s, {number} steps, loss {float(loss):.4f}", flush=True)
    optimizer.load_average()
    with torch.no_grad():
        pictures, truth = _sample([_HELD_OUT + k for k in range(24)], 8, device)
        told = torch.cat([reader(piece) for piece in pictures.split(32)])
    r = {name: correlation(told[:, k], truth[:, k]) for k, name in enumerate(FIELDS)}
    error = float((told[:, 0] - truth[:, 0]).abs().mean())
    save_weights(reader, out / FILE, torch.float16, error=f"{error:.4f}", r=f"{r['opening']:.4f}", steps=number)
    print("reader: held out r " + ", ".join(f"{name} {value:.3f}" for name, value in r.items()))
    print(f"reader: mean error of the opening {error:.4f}", flush=True)
