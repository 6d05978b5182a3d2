"""Trains the transformer on the latents of drawn people: flow matching, conditioned as the engine conditions.

Every random choice of a step is made on the device, so that a CUDA graph holds the whole step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..pipeline.evaluation.reader import FaceReader
from ..pipeline.models.transformer.block import TransformerConfig
from .clips import near
from .generating import Trial, generate, measure, pixels
from .latents import CLIPS, MOTION_LATENTS, Set, Texts, reference_channels, speech_windows
from .sheets import save_sheet
from .training import Averaged, Clock, Optimizer, graphed
from .transformer_network import CONFIG, Conditions, Network, Parameters, initial_parameters, run_block
from .vae_network import Whole

FILE = "transformer.safetensors"
RATE = 1.5e-3
_DROP_TEXT, _DROP_SPEECH = 0.12, 0.12
_NEAR_WEIGHT = 4.0
_SEAM_WEIGHT = 3.0  # of the latent that follows the motion latents: it is what is seen where windows meet
_NOISY_MOTION, _MOTION_NOISE = 0.3, 0.08  # part of the windows whose motion latents get noise, and its most


class Sampler:
    """Draws batches of training examples, on the device.

    Args:
        count: examples in a batch.
        drop: leave speech or text out now and then.
        spoil: put noise on some windows' motion latents.
    """

    def __init__(self, data: Set, texts: Texts, count: int, drop: bool = True, spoil: bool = True) -> None:
        self.data, self.texts, self.count = data, texts, count
        self.drop_text, self.drop_speech = (_DROP_TEXT, _DROP_SPEECH) if drop else (-1.0, -1.0)
        self.noisy_motion = _NOISY_MOTION if spoil else -1.0
        self.length = data.latents.shape[2]
        height, width = data.latents.shape[-2:]
        device = data.latents.device
        self.rows = (torch.arange(height, device=device) + 0.5) * (2 / height) - 1
        self.columns = (torch.arange(width, device=device) + 0.5) * (2 / width) - 1
        self.start = torch.full((count,), 2, device=device)
        self.latent = torch.arange(self.length, device=device)

    def draw(
        self, clip: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, Conditions, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Clean latents, conditions, motion latents over all frames, where they are held [n, T], and loss weights.

        Args:
            clip: numbers of the clips, [n]; by chance if left out.
        """
        data, device, n = self.data, self.data.latents.device, self.count
        clip = torch.randint(len(data), (n,), device=device) if clip is None else clip
        person = clip // CLIPS
        clean = data.latents[clip].float()
        speech = speech_windows(data.speech[clip].float(), self.start, 4 * self.length - 3)
        speech = speech * (torch.rand(n, device=device) > self.drop_speech).float().view(-1, 1, 1, 1, 1)
        variant = torch.randint(self.texts.asked.shape[1], (n,), device=device)
        text = self.texts.asked[data.mood[clip], variant]
        dropped = self.texts.dropped[(torch.rand(n, device=device) < 0.25).long()]
        drop = (torch.rand(n, device=device) < self.drop_text).view(-1, 1, 1)
        text = torch.where(drop, dropped, text).float()
        reference = reference_channels(data.reference[person].float(), self.length)
        given = Conditions(reference, text, data.image[person].float(), speech)

        first = data.first[clip]  # one latent is held, that of the reference
        held = self.latent < torch.where(first, 1, MOTION_LATENTS)[:, None]
        noisy = (torch.rand(n, 1, 1, 1, 1, device=device) < self.noisy_motion) * torch.rand(
            n, 1, 1, 1, 1, device=device
        )
        known = torch.cat([data.motion[clip].float(), clean[:, :, MOTION_LATENTS:]], dim=2)
        known = known + torch.randn_like(clean) * _MOTION_NOISE * noisy
        known = torch.where(first.view(-1, 1, 1, 1, 1), reference[:, 4:], known)

        weight = 1 + _NEAR_WEIGHT * near(data.where[clip], self.rows, self.columns)
        weight[:, MOTION_LATENTS] *= torch.where(first, 1.0, _SEAM_WEIGHT).view(-1, 1, 1)
        weight = weight * (~held).float()[:, :, None, None]
        return clean, given, known, held, weight / weight.mean()


def loss_of(network: Network, sampler: Sampler) -> torch.Tensor:
    clean, given, known, held, weight = sampler.draw()
    n, device = len(clean), clean.device
    kind = torch.rand(n, device=device)
    # where the head goes is decided while almost all is noise, which few examples would see otherwise
    shift = torch.where(kind < 0.5, 5.0, torch.where(kind < 0.8, 20.0, 1.5))
    even = torch.rand(n, device=device)
    level = shift * even / (1 + (shift - 1) * even)
    noise = torch.randn_like(clean)
    noisy = torch.lerp(clean, noise, level.view(-1, 1, 1, 1, 1))
    noisy = torch.where(held[:, None, :, None, None], known, noisy)
    velocity = network(noisy, level * 1000, given)
    return ((velocity - (noise - clean)).square().mean(dim=1) * weight).mean()


def train(
    data: Set,
    texts: Texts,
    out: Path,
    seconds: float,
    whole: Whole,
    reader: FaceReader,
    trials: dict[str, Trial],
    resume: Path | None = None,
    count: int = 24,
    graph: bool = True,
    compile_blocks: bool = True,
    config: TransformerConfig = CONFIG,
    looks: int = 1,
) -> None:
    """Train for so many seconds, looking at ``trials`` now and then; writes the weights and pictures."""
    device = data.latents.device
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    start = {n: t.float() for n, t in load_file(resume).items()} if resume else initial_parameters(config)
    parameters = {name: tensor.to(device).requires_grad_() for name, tensor in start.items()}
    network = Network(config, parameters, dtype, compile_blocks and cuda)
    plain = Network(config, parameters, dtype)
    matrices = [p for n, p in parameters.items() if n.startswith("blocks.") and p.dim() == 2]
    others = [p for n, p in parameters.items() if not (n.startswith("blocks.") and p.dim() == 2)]
    optimizer = Optimizer(matrices, others, RATE, betas=(0.9, 0.98), average=0.999)
    for p in parameters.values():
        p.grad = torch.zeros_like(p)
    sampler = Sampler(data, texts, count)
    clock = Clock(seconds, warm_up=150, flat=0.5)

    def step() -> torch.Tensor:
        torch._foreach_zero_([p.grad for p in parameters.values()])
        loss = loss_of(network, sampler)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run, number, last_print, looked = None, 0, time.monotonic(), 0
    smooth = torch.zeros((), device=device)
    while clock.part() < 1:
        optimizer.scale.fill_(clock.rate(number))
        if run is None:
            run = fastest(step, network, graph and cuda)
            print(f"transformer: steps ready at {clock.elapsed():.1f} s", flush=True)
        loss = run()
        smooth = loss.clone() if number == 0 else torch.lerp(smooth, loss, 0.02)
        number += 1
        if number % 20 == 0 and time.monotonic() - last_print > max(10.0, seconds / 15):
            last_print = time.monotonic()
            print(f"transformer: {clock.elapsed():.0f} s, {number} steps, loss {float(smooth):.4f}", flush=True)
            if not math.isfinite(float(smooth)):
                raise RuntimeError("the transformer's loss is not finite")
            with Averaged(optimizer):
                save(parameters, out / FILE, number)
        if clock.part() > (looked + 1) / (looks + 1):
            looked += 1
            with Averaged(optimizer):
                look(plain, whole, reader, trials, out, f"at {clock.elapsed():.0f} s", quick=True)
    optimizer.load_average()
    save(parameters, out / FILE, number)
    print(f"transformer: {number} steps of {count}", flush=True)
    look(plain, whole, reader, trials, out, "end")


def fastest(step: Callable[[], torch.Tensor], network: Network, graph: bool) -> Callable[[], torch.Tensor]:
    """The fastest form of a step that works here; drawing the data took too long to give up for a compiler."""
    for graphs, blocks in ((graph, network.run_block), (graph, run_block), (False, run_block)):
        try:
            network.run_block = blocks
            return graphed(step, graphs)
        except Exception as error:
            print(f"graphs {graphs}, compiled {blocks is not run_block}: {error!r}"[:2000], flush=True)
    return step


def save(parameters: Parameters, path: Path, steps: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in parameters.items()}
    temporary = path.with_suffix(".part")
    save_file(weights, temporary, {"steps": str(steps)})
    temporary.replace(path)


def look(
    network: Network,
    whole: Whole,
    reader: FaceReader,
    trials: dict[str, Trial],
    out: Path,
    when: str,
    quick: bool = False,
) -> None:
    """Generate the trials, print what is measured and save frames."""
    for name, trial in trials.items():
        for steps, shift in ((12, 5.0),) if quick else ((4, 5.0), (20, 5.0)):
            latents = generate(network, trial.given, steps, shift)
            video = measure(trial, pixels(whole, latents), reader, f"{name} {when}, {steps} steps, shift {shift:g}")
            if (steps, shift) == (20, 5.0) or quick:
                picks = torch.linspace(0, video.shape[2] - 1, 10).long().tolist()
                rows = torch.cat([trial.portraits[:, None], video[:, :, picks].transpose(1, 2)], dim=1)
                save_sheet(rows[:10], out / f"transformer_{name}.png")
