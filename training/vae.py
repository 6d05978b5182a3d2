"""Trains the VAE: first on crops of a few frames, then on whole clips of 81 frames.

A causal VAE that never saw long clips breaks after the last frame it knew; hence the second part. There
it also learns single frames, on which all others hang, and windows that begin with the decoded end of
the one before: their next frames shall be those that the decoder would have made anyhow. Clips are drawn
into a pool on the device beforehand. Ends with the latents' statistics and a report.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch

from ..pipeline.models.vae.model import WanVAE
from .clips import (
    FRAMES,
    MOTION_FRAMES,
    SIDE,
    draw_clip,
    draw_portraits,
    from_levels,
    make_scenes,
    near,
    places,
    to_levels,
)
from .sheets import save_sheet
from .training import Averaged, Clock, Optimizer, graphed_if_possible, load_weights, save_weights
from .vae_network import Whole, Z, build, fold, initialise, unfold

FILE = "vae.safetensors"
RATE, OTHER_RATE, KL = 4e-3, 2.4e-3, 3e-4
_RESUMED_RATE = 0.6  # of the above
_FIRST, _SEAM, _IMAGES = 4.0, 10.0, 0.3  # weights of a first frame, of those after a seam, of single frames
_SEAM_FRAMES = 4
_HELD_OUT = 900_000  # seeds from here on are for reports


class Pool:
    """Clips on the device as levels of 0 to 255, with where mouth and eyes are in each frame."""

    def __init__(self, first: int, clips: int, speech: torch.Tensor, side: int, frames: int) -> None:
        self.video = torch.empty(clips, frames, 3, side, side, dtype=torch.uint8, device=speech.device)
        self.where = torch.empty(clips, frames, 2, 2, device=speech.device)
        self.portrait = torch.empty(clips, 3, side, side, dtype=torch.uint8, device=speech.device)
        for start in range(0, clips, 16):
            scenes = make_scenes([first + k for k in range(start, min(start + 16, clips))], speech, clean=True)
            where = places(scenes)
            portraits = to_levels(draw_portraits(scenes.person, side))
            for k in range(len(scenes.moods)):
                at = 0 if k % 4 == 0 else int(torch.randint(200, (1,), generator=_generator(first + start + k)))
                self.video[start + k] = to_levels(draw_clip(scenes, k, at, frames, side))
                self.where[start + k] = where[k, at : at + frames]
                self.portrait[start + k] = portraits[k]

        self.places = self.where.cpu()  # so that choosing a crop does not wait for the device

    def __len__(self) -> int:
        return len(self.video)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Batch:
    """Input of one kind of step, in tensors that stay where they are.

    Args:
        count, frames, side: of the crops.
    """

    def __init__(self, pool: Pool, count: int, frames: int, side: int) -> None:
        self.pool, self.frames, self.side = pool, frames, side
        device = pool.video.device
        self.video = torch.zeros(count, 3, frames, side, side, device=device)
        self.where = torch.zeros(count, frames, 2, 2, device=device)
        self.steps = 0

    def fill(self) -> None:
        """Random crops; one of the clips is now and then a still with grey after it, as references are encoded."""
        pool, full = self.pool, self.pool.video.shape[-1]
        for k in range(len(self.video)):
            clip = int(torch.randint(len(pool), (1,)))
            start = int(torch.randint(pool.video.shape[1] - self.frames + 1, (1,)))
            left, top = (int(torch.randint((full - self.side) // 8 + 1, (1,))) * 8 for _ in range(2))
            if torch.rand(1) < 0.7 and self.side < full:  # look at mouth and eyes more often
                x, y = ((pool.places[clip, start, int(torch.randint(2, (1,)))] + 1) / 2 * full).tolist()
                left, top = (min(max(int(at - self.side / 2), 0), full - self.side) for at in (x, y))
            rows, columns = slice(top, top + self.side), slice(left, left + self.side)
            self.video[k] = from_levels(pool.video[clip, start : start + self.frames, :, rows, columns]).transpose(0, 1)
            scale = full / self.side
            middle = torch.tensor([(left + self.side / 2) / full * 2 - 1, (top + self.side / 2) / full * 2 - 1])
            self.where[k] = (pool.where[clip, start : start + self.frames] - middle.to(self.where)) * scale
            if k == 0 and self.steps % (1 if len(self.video) > 1 else 6) == 0:
                self.video[k] = 0
                self.video[k, :, 0] = from_levels(pool.portrait[clip, :, rows, columns])
        self.steps += 1


class Images:
    """Single frames as input, in tensors that stay where they are: half of them portraits."""

    def __init__(self, pool: Pool, count: int, side: int) -> None:
        self.pool = pool
        self.video = torch.zeros(count, 3, 1, side, side, device=pool.video.device)
        self.where = torch.zeros(count, 1, 2, 2, device=pool.video.device)

    def fill(self) -> None:
        pool = self.pool
        for k in range(len(self.video)):
            clip, frame = int(torch.randint(len(pool), (1,))), int(torch.randint(pool.video.shape[1], (1,)))
            portrait = k % 2 == 0
            self.video[k, :, 0] = from_levels(pool.portrait[clip] if portrait else pool.video[clip, frame])
            self.where[k] = pool.where[clip, 0 if portrait else frame]


def loss_of(
    whole: Whole, video: torch.Tensor, where: torch.Tensor, scale: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The training loss and the mean squared error; ``where`` and ``scale`` as ``clips.near`` takes them."""
    latents, kl = _latents(whole, video)
    error = whole.decode(latents) - video
    frames = torch.ones(video.shape[2], device=video.device)
    frames[:1].fill_(_FIRST)  # a latent of its own, and what a whole video looks like hangs on it
    return _error_loss(error, where, scale, frames) + KL * kl, error.detach().square().mean()


def seam_loss(whole: Whole, video: torch.Tensor, where: torch.Tensor, start: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The same of a window from frame ``start`` of a clip on, which begins with frames that were decoded before."""
    with torch.no_grad():
        decoded = whole.decode(whole.moments(video)[0]).clamp(-1, 1)[:, :, start:]
    known, later = MOTION_FRAMES, MOTION_FRAMES + _SEAM_FRAMES
    latents, kl = _latents(whole, video[:, :, start:])
    before, _ = _latents(whole, decoded[:, :, :known])
    wanted = torch.cat([decoded[:, :, :later], video[:, :, start + later :]], dim=2)
    error = whole.decode(torch.cat([before, latents[:, :, before.shape[2] :]], dim=2)) - wanted
    frames = torch.ones(wanted.shape[2], device=video.device)
    frames[known:later].fill_(_SEAM)
    return _error_loss(error, where[:, start:], 1.0, frames) + KL * kl, error.detach().square().mean()


def _latents(whole: Whole, video: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents with their noise, and their distance from a normal distribution."""
    mean, log_variance = whole.moments(video)
    log_variance = log_variance.clamp(-20, 10)
    kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
    return mean + (0.5 * log_variance).exp() * torch.randn_like(mean), kl


def _error_loss(error: torch.Tensor, where: torch.Tensor, scale: float, frames: torch.Tensor) -> torch.Tensor:
    """Of pixels and of their differences; ``frames`` weighs them."""
    loss = pixel_loss(error, where, frames, scale)
    if error.shape[2] > 1:
        loss = loss + 0.25 * change_loss(error, where, frames[None, 1:], scale)
    return loss


def pixel_loss(error: torch.Tensor, where: torch.Tensor, frames: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Of pixels and of the differences to those beside them; ``frames`` weighs frames."""
    weight = _emphasis(error, where, scale)[:, None] * frames.view(-1, 1, 1)
    across = (error[..., 1:] - error[..., :-1]).abs() * weight[..., 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weight[..., 1:, :]
    return (error.abs() * weight).mean() + 0.5 * (across.mean() + down.mean())


def change_loss(error: torch.Tensor, where: torch.Tensor, weight: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Of the differences from one frame to the next; ``weight`` [n or 1, frames - 1]."""
    weight = _emphasis(error, where, scale)[:, 1:] * weight[:, :, None, None]
    return ((error[:, :, 1:] - error[:, :, :-1]).abs() * weight[:, None]).mean()


def _emphasis(error: torch.Tensor, where: torch.Tensor, scale: float) -> torch.Tensor:
    """Mouth and eyes count four times, [n, frames, rows, columns]."""
    side = error.shape[-1]
    steps = (torch.arange(side, device=error.device) + 0.5) * (2 / side) - 1
    return 1 + 3 * near(where, steps, steps, scale)


def train(
    speech: torch.Tensor,
    out: Path,
    seconds: float,
    resume: Path | None = None,
    clips: int = 1400,
    graph: bool = True,
    side: int = SIDE,
    width: int = 16,
    frames: int = FRAMES,
) -> None:
    """Train for so many seconds, drawing included, and write ``vae.safetensors`` and ``vae.png``."""
    device = speech.device
    cuda = device.type == "cuda"
    clock = Clock(seconds, flat=0.35)
    pool = Pool(0, clips, speech, side, frames)
    held_out = Pool(_HELD_OUT, 8, speech, side, frames)
    _synchronise(device)
    print(f"vae: {clips} clips drawn in {clock.elapsed():.1f} s", flush=True)
    vae = build(width)
    initialise(vae)
    if resume is not None:
        vae = load(resume, torch.device("cpu"), width=width)
        unfold(vae)
        del vae.latent_mean, vae.latent_std
    vae.to(device)
    whole = Whole(vae, torch.bfloat16 if cuda else torch.float32, fused=cuda)
    optimizer = optimizer_of(dict(vae.named_parameters()))

    crop, cut = side // 3 // 8 * 8, (frames - 1) // 8 * 4
    small, large = Batch(pool, 8, min(17, frames), crop), Batch(pool, 1, frames, side)
    images = Images(pool, 8, side)

    def losses(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        if kind == "small":
            return loss_of(whole, small.video, small.where, side / crop)
        alone, _ = loss_of(whole, images.video, images.where)
        if kind == "large":
            loss, error = loss_of(whole, large.video, large.where)
        else:
            loss, error = seam_loss(whole, large.video, large.where, cut)
        return loss + _IMAGES * alone, error

    def step_on(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
        torch._foreach_zero_([p.grad for p in vae.parameters()])
        loss, error = losses(kind)
        loss.backward()
        optimizer.step()
        return loss.detach(), error

    steps, counts, last_print = {}, {"small": 0, "large": 0, "next": 0}, time.monotonic()
    # only the second part sees late frames and everything around the mouth
    begin_large = 0.0 if resume is not None else clock.part() + 0.42 * (1 - clock.part())
    number = 0
    while clock.part() < 1:
        kind = "large" if clock.part() >= begin_large or number % 40 == 39 else "small"
        if kind == "large" and counts["large"] > counts["next"]:
            kind = "next"
        for batch in (small,) if kind == "small" else (large, images):
            batch.fill()
        optimizer.scale.fill_(clock.rate(number) * (1 if resume is None else _RESUMED_RATE))
        if kind not in steps:
            steps[kind] = graphed_if_possible(lambda kind=kind: step_on(kind), graph and cuda)
            _synchronise(device)
            print(f"vae: {kind} steps ready at {clock.elapsed():.1f} s", flush=True)
        loss, error = steps[kind]()
        number += 1
        counts[kind] += 1
        if time.monotonic() - last_print > max(10.0, seconds / 30) or number == 20:
            last_print = time.monotonic()
            psnr = 10 * math.log10(4 / max(float(error), 1e-9))
            print(
                f"vae: {clock.elapsed():.0f} s, steps {counts}, {kind} loss {float(loss):.4f} {psnr:.2f} dB", flush=True
            )
            if not math.isfinite(float(loss)):
                raise RuntimeError("the VAE's loss is not finite")
            with Averaged(optimizer):
                save_weights(vae, out / FILE, steps=number)
    optimizer.load_average()
    finish(vae, whole, pool, held_out, out, number)


def optimizer_of(parameters: dict[str, torch.nn.Parameter], part: float = 1.0) -> Optimizer:
    """For parameters by name, which get gradients of zero, at a ``part`` of the usual rates."""
    # gammas are stored with axes behind them, and the last layer goes to colours: neither is Muon's business
    matrices = {n: p for n, p in parameters.items() if p.dim() >= 4 and "gamma" not in n and p.shape[0] != 3}
    others = [p for n, p in parameters.items() if n not in matrices]
    for p in parameters.values():
        p.grad = torch.zeros_like(p)
    return Optimizer(list(matrices.values()), others, RATE * part, OTHER_RATE * part)


@torch.no_grad()
def finish(vae: WanVAE, whole: Whole, pool: Pool, held_out: Pool, out: Path, steps: int) -> None:
    """Measure the latents' statistics, store them with the weights, and report on clips never trained on."""
    sums, squares, count = 0.0, 0.0, 0
    for k in range(0, min(len(pool), 64)):
        mean = whole.moments(from_levels(pool.video[k]).transpose(0, 1)[None])[0][0].double()
        sums, squares = sums + mean.sum(dim=(1, 2, 3)), squares + mean.square().sum(dim=(1, 2, 3))
        count += mean[0].numel()
    mean = sums / count
    std = (squares / count - mean.square()).clamp(min=1e-8).sqrt()
    vae.register_buffer("latent_mean", mean.float())
    vae.register_buffer("latent_std", std.float())
    save_weights(vae, out / FILE, steps=steps)
    print(f"vae: latents' mean {few(mean)}, deviation {few(std)}")
    errors, rows, bias, seams = [], [], [], []
    for k in range(len(held_out)):
        video = from_levels(held_out.video[k]).transpose(0, 1)[None]
        made = whole.decode(whole.moments(video)[0]).clamp(-1, 1)
        errors.append((made - video).square().mean(dim=(0, 1, 3, 4)))
        bias.append((made - video).mean(dim=(0, 3, 4)) * 127.5)
        cut = (video.shape[2] - 1) // 8 * 4
        if video.shape[2] - cut > MOTION_FRAMES:
            before = whole.moments(made[:, :, cut : cut + MOTION_FRAMES])[0]
            latents = whole.moments(video[:, :, cut:])[0]
            window = whole.decode(torch.cat([before, latents[:, :, before.shape[2] :]], dim=2)).clamp(-1, 1)
            step = window[:, :, MOTION_FRAMES] - made[:, :, cut + MOTION_FRAMES - 1]
            seams.append(step.abs().mean() / (made[:, :, 1:] - made[:, :, :-1]).abs().mean())
        picks = torch.linspace(0, video.shape[2] - 1, 6).long().tolist()
        rows.append(torch.stack([*video[0, :, picks].transpose(0, 1), *made[0, :, picks].transpose(0, 1)]))
    psnr = 10 * torch.log10(4 / torch.stack(errors).mean(dim=0))
    print(f"vae: held out {psnr.mean():.2f} dB; by frame {few(psnr[:: max(1, len(psnr) // 10)])}")
    print(f"vae: worst colour bias of a frame {torch.stack(bias).mean(dim=0).abs().max():.2f} levels; {steps} steps")
    if seams:
        print(f"vae: change at a seam against elsewhere {torch.stack(seams).mean():.2f}", flush=True)
    save_sheet(torch.stack(rows), out / "vae.png")


def few(values: torch.Tensor) -> str:
    return " ".join(f"{value:.2f}" for value in values.tolist())


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def load(path: Path, device: torch.device, folded: bool = True, width: int = 16) -> WanVAE:
    """The trained VAE; folded, so that the engine's statistics fit."""
    vae = build(width)
    vae.register_buffer("latent_mean", torch.zeros(Z))
    vae.register_buffer("latent_std", torch.ones(Z))
    load_weights(vae, path)
    if folded:
        fold(vae, vae.latent_mean, vae.latent_std)
    return vae.to(device).eval()
