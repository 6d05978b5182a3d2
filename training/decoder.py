"""Trains the VAE's decoder alone, on latents as they come: true ones, and those of the transformer's last step.

A decoder that knows nothing but its encoder's latents changes the picture more from one latent to the next
than within one, and more so where latents were made: motion goes in steps of four frames. Here it learns,
against the drawn frames, how much changes from each frame to the next. And where a window continues another
one, it learns to give the frames that were decoded before once more, and to go on from them: what a second
pass through the VAE changes is seen where windows meet. The encoder stays as it is to the bit, and with it
the latents, the transformer and its LoRA.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from ..pipeline.evaluation.reader import FaceReader
from ..pipeline.models.transformer.block import TransformerConfig
from .clips import MOTION_FRAMES, draw_clip, from_levels
from .generating import Trial, generate, measure, second_window
from .latents import CLIPS, ENOUGH, MOTION_LATENTS
from .lora import SHIFT
from .sheets import save_sheet
from .training import Averaged, Clock, graphed_if_possible, save_weights
from .transformer import Sampler
from .transformer_network import CONFIG, Conditions, Network, Parameters
from .vae import FILE, change_loss, few, load, optimizer_of, pixel_loss
from .vae_network import Whole

_RATE = 0.5  # of the VAE's rates
_FIRST = 4.0  # weight of a first frame, a latent of its own
_CHANGE, _AMOUNT = 1.5, 2.0  # weights of the difference between frames, and of how much of it there is
_BLOCK = 12  # pixels: finer than this it does not matter where something changes
_BETWEEN, _SEAM = 3.0, 6.0  # weights of both from one latent to the next, and after the frames known before
_STUDENT = (0.625, 0.715)  # noise levels from which the LoRA's last step begins: the two solvers', and between
_TEACHER = (0.02, 0.3)  # and the last few of twenty steps


def amount(video: torch.Tensor) -> torch.Tensor:
    """How much changes to the next frame, in blocks: [n, 3, frames, H, W] -> [n, frames - 1, rows, columns]."""
    return F.avg_pool2d((video[:, :, 1:] - video[:, :, :-1]).abs().mean(dim=1), _BLOCK)


def amount_loss(shown: torch.Tensor, drawn: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Difference of the amounts; ``weight`` [n, frames - 1]."""
    return ((amount(shown) - amount(drawn)).abs().mean(dim=(2, 3)) * weight).mean()


def change_weights(frames: int, continues: torch.Tensor) -> torch.Tensor:
    """Of the change to each next frame, [n, frames - 1]; ``continues`` [n] tells windows that follow another."""
    weight = torch.ones(len(continues), frames - 1, device=continues.device)
    weight[:, ::4] = _BETWEEN  # frame 0 is latent 0, frames 1 to 4 are latent 1
    weight[:, MOTION_FRAMES - 1] = torch.where(continues, _SEAM, _BETWEEN)
    return weight


def last_step(
    network: Network,
    clean: torch.Tensor,
    known: torch.Tensor,
    held: torch.Tensor,
    given: Conditions,
    levels: tuple[float, float],
) -> torch.Tensor:
    """What the network makes, in one step, of latents with noise of a level between two.

    Args:
        known, held: latents that are given, and where, [n, 1, T, 1, 1].
    """
    level = torch.empty(len(clean), device=clean.device).uniform_(*levels)
    wide = level.view(-1, 1, 1, 1, 1)
    noisy = torch.where(held, known, torch.lerp(clean, torch.randn_like(clean), wide))
    return noisy - wide * network(noisy, level * 1000, given)


@dataclass(frozen=True)
class Batch:
    """What a step learns from.

    Attributes:
        latents: [n, 16, T, h, w].
        drawn: the frames that they are to become, [n, 3, frames, H, W].
        before: the last frames of the window before, as they were decoded, [n, 3, 9, H, W].
        continues: whether the window follows that one, [n]; else ``before`` means nothing.
        where: mouth and eyes at each frame.
    """

    latents: torch.Tensor
    drawn: torch.Tensor
    before: torch.Tensor
    continues: torch.Tensor
    where: torch.Tensor


class Examples:
    """Draws batches, on the device.

    Args:
        sampler: of data with frames; draws conditions as they are.
        teacher, student: without and with LoRA.
        whole: the VAE in training, which decodes the windows before.
    """

    def __init__(self, sampler: Sampler, teacher: Network, student: Network, whole: Whole) -> None:
        self.sampler, self.teacher, self.student, self.whole = sampler, teacher, student, whole
        frames = sampler.data.frames.shape[1]
        device = sampler.data.latents.device
        self.latent = (torch.arange(frames, device=device) + 3) // 4  # of each frame
        self.windows = torch.tensor([0, 1, 1, 2], device=device)  # of a person; the one that follows twice as often

    @torch.no_grad()
    def draw(self) -> Batch:
        data, n = self.sampler.data, self.sampler.count
        device = data.latents.device
        window = self.windows[torch.randint(4, (n,), device=device)]
        clip = torch.randint(len(data) // CLIPS, (n,), device=device) * CLIPS + window
        continues = window == 1
        ended = self.made(clip - continues.long())[:, :, -ENOUGH:]
        before = self.whole.frames(ended)[:, :, -MOTION_FRAMES:]
        latents = self.made(clip, continues, self.whole.encode(before))
        drawn = from_levels(data.frames[clip]).transpose(1, 2)
        return Batch(latents, drawn, before, continues, data.where[clip][:, self.latent])

    def made(
        self, clip: torch.Tensor, continues: torch.Tensor | None = None, motion: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Latents of clips: true, or made by one of the networks; those that ``continue`` begin with ``motion``."""
        clean, given, known, held, _ = self.sampler.draw(clip)
        if motion is not None:
            follows = continues.view(-1, 1, 1, 1, 1)
            known = torch.cat(
                [torch.where(follows, motion, known[:, :, :MOTION_LATENTS]), known[:, :, MOTION_LATENTS:]], dim=2
            )
        held = held[:, None, :, None, None]
        kind = torch.rand(len(clip), 1, 1, 1, 1, device=clip.device) * 3
        of_student = last_step(self.student, clean, known, held, given, _STUDENT)
        of_teacher = last_step(self.teacher, clean, known, held, given, _TEACHER)
        latents = torch.where(kind < 1, clean, torch.where(kind < 2, of_student, of_teacher))
        return torch.where(held, known, latents)


def train(
    sampler: Sampler,
    parameters: Parameters,
    with_lora: Parameters,
    trial: Trial,
    reader: FaceReader,
    out: Path,
    seconds: float,
    graph: bool = True,
    config: TransformerConfig = CONFIG,
    width: int = 16,
) -> None:
    """Train the decoder of ``vae.safetensors`` for so many seconds, and report before and after.

    Args:
        sampler: of data with frames.
        parameters, with_lora: the transformer's, float32.
    """
    device = sampler.data.latents.device
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    clock = Clock(seconds, flat=0.4)
    # not folded: what is not trained is written as it was read
    vae = load(out / FILE, device, folded=False, width=width).requires_grad_(False)
    trained = {n: p for n, p in vae.named_parameters() if n.startswith(("conv2.", "decoder."))}
    for p in trained.values():
        p.requires_grad_()
    whole = Whole(vae, dtype, fused=cuda, statistics=(vae.latent_mean, vae.latent_std))
    student = Network(config, with_lora, dtype)
    examples = Examples(sampler, Network(config, parameters, dtype), student, whole)
    optimizer = optimizer_of(trained, _RATE)
    report(whole, student, trial, reader, out, "before")

    def step() -> tuple[torch.Tensor, torch.Tensor]:
        torch._foreach_zero_([p.grad for p in trained.values()])
        batch = examples.draw()
        made, drawn = whole.decode(batch.latents * whole.std + whole.mean), batch.drawn
        follows = batch.continues.view(-1, 1, 1, 1, 1)
        known, later = slice(MOTION_FRAMES), slice(MOTION_FRAMES, None)
        given = torch.where(follows, batch.before, drawn[:, :, known])
        shown = torch.cat([torch.where(follows, batch.before, made[:, :, known]), made[:, :, later]], dim=2)
        frames = torch.ones(drawn.shape[2], device=device)
        frames[:1].fill_(_FIRST)
        loss = pixel_loss(made - torch.cat([given, drawn[:, :, later]], dim=2), batch.where, frames)
        weight = change_weights(drawn.shape[2], batch.continues)
        loss = loss + _CHANGE * change_loss(shown - drawn, batch.where, weight)
        loss = loss + _AMOUNT * amount_loss(shown, drawn, weight)
        loss.backward()
        optimizer.step()
        return loss.detach(), (made.detach() - drawn).square().mean()

    run, number, last_print = None, 0, time.monotonic()
    smooth = torch.zeros(2, device=device)
    while clock.part() < 1:
        optimizer.scale.fill_(clock.rate(number))
        if run is None:
            run = graphed_if_possible(step, graph and cuda)
            print(f"decoder: steps ready at {clock.elapsed():.1f} s", flush=True)
        both = torch.stack(run())
        smooth = both if number == 0 else torch.lerp(smooth, both, 0.02)
        number += 1
        if number % 10 == 0 and time.monotonic() - last_print > 15:
            last_print = time.monotonic()
            loss, error = smooth.tolist()
            psnr = 10 * math.log10(4 / max(error, 1e-9))
            print(f"decoder: {clock.elapsed():.0f} s, {number} steps, loss {loss:.4f} {psnr:.2f} dB", flush=True)
            if not math.isfinite(loss):
                raise RuntimeError("the decoder's loss is not finite")
            with Averaged(optimizer):
                save_weights(vae, out / FILE, steps=number)
    if not bool(smooth.isfinite().all()):
        raise RuntimeError("the decoder's loss is not finite")
    optimizer.load_average()
    save_weights(vae, out / FILE, steps=number)
    print(f"decoder: {number} steps of {sampler.count}", flush=True)
    report(whole, student, trial, reader, out, "after")


@torch.no_grad()
def report(whole: Whole, student: Network, trial: Trial, reader: FaceReader, out: Path, when: str) -> None:
    """Figures of people held out, and a picture: drawn, through the VAE, and made in four steps with the LoRA."""
    count, frames, side = len(trial.portraits), trial.given.speech.shape[1], trial.portraits.shape[-1]
    drawn = torch.stack([draw_clip(trial.scenes, k, 0, frames, side) for k in range(count)]).transpose(1, 2)
    decoded = torch.cat([whole.frames(whole.encode(one[None])) for one in drawn])
    latents = generate(student, trial.given, 4, SHIFT)
    made = torch.cat([whole.frames(one[None]) for one in latents])
    held = torch.cat([whole.encode(one[None, :, -MOTION_FRAMES:]) for one in made])
    latents = generate(student, second_window(trial), 4, SHIFT, held, seed=1)
    second = torch.cat([whole.frames(one[None]) for one in latents])
    psnr = 10 * torch.log10(4 / (decoded - drawn).square().mean(dim=(0, 1, 3, 4)))
    print(f"decoder {when}: held out {psnr.mean():.2f} dB; by frame {few(psnr[:: max(1, frames // 10)])}")
    for name, video in (("drawn", drawn), ("true latents", decoded), ("4 steps", made), ("second", second)):
        size = _changes(video).mean(dim=0)
        places = size.unflatten(0, (-1, 4)).mean(dim=0)
        print(
            f"decoder {when}: {name}: change {127.5 * size.mean():.3f} levels; to the next latent's first frame, and "
            f"to its others, of the mean: {few(places / places.mean())}"
        )
    changes = _changes(torch.cat([made, second[:, :, MOTION_FRAMES:]], dim=2))
    again = (second[:, :, MOTION_FRAMES - 1] - made[:, :, -1]).abs().mean()
    print(f"decoder {when}: the last frame, through the VAE again: {127.5 * again:.3f} levels")
    seam = changes[:, frames - 1]
    seams = seam / ((changes.sum(dim=1) - seam) / (changes.shape[1] - 1))
    print(f"decoder {when}: change at a seam against elsewhere {seams.mean():.3f} ({few(seams)})", flush=True)
    measure(trial, made, reader, f"decoder {when}")
    picks = torch.linspace(0, frames - 1, 6).long().tolist()
    rows = [torch.cat([video[k, :, picks] for video in (drawn, decoded, made)], dim=1) for k in range(count)]
    save_sheet(torch.stack(rows).transpose(1, 2), out / f"decoder_{when}.png")


def _changes(video: torch.Tensor) -> torch.Tensor:
    """[n, 3, frames, H, W] -> mean change to the next frame, [n, frames - 1]."""
    return (video[:, :, 1:] - video[:, :, :-1]).abs().mean(dim=(1, 3, 4))
