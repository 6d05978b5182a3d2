"""Trains the checkpoint for two speakers: the audio weights alone, on pairs of drawn people side by side.

A pair is two clips of the transformer's set, latents beside each other, each person with speech of their own. Voices
are bound to faces as the engine does it, by halves or by boxes around the faces, in either order; now and then both
hear one voice, or none, as the passes of guidance do. Starts from the weights for one speaker; all others stay.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from ..pipeline.evaluation.reader import FaceReader, read_frames
from .clips import SIDE
from .generating import Trial, generate, pixels
from .latents import CLIPS, Set, Texts, speech_windows
from .people import people
from .sheets import save_sheet
from .speech_encoder import correlation
from .speech_encoder import encode as encode_speech
from .training import Averaged, Clock, Optimizer
from .transformer import FILE as ONE_FILE
from .transformer import Sampler, fastest, loss_of
from .transformer_network import CONFIG, Conditions, Network, Pair, Parameters
from .vae_network import Whole

FILE = "infinitetalk_multi.safetensors"
TRAINED = ("audio_proj.", "audio_cross_attn.", "norm_x.")
RATE = 8e-4
TOKEN = 16  # pixels
_HALVES, _SWAPPED, _ALONE, _SILENT = 0.5, 0.4, 0.1, 0.5  # parts of the pairs; of those alone, that hear nothing
_EDGE = 0.05  # of a half that is left out on each side, as upstream does


def with_turns(sounds: torch.Tensor, seed: int = 11) -> torch.Tensor:
    """The same [clips, samples]: in some nothing is said, in others now and then, for seconds."""
    chance, sounds = np.random.default_rng(seed), sounds.clone()
    for sound in sounds:
        kind = chance.random()
        if kind < 0.2:
            sound.zero_()
        elif kind < 0.65:
            at, speaks = 0, chance.random() < 0.5
            while at < len(sound):
                length = int(chance.uniform(0.8, 4.0) * 16_000)
                if not speaks:
                    sound[at : at + length] = 0
                at, speaks = at + length, not speaks
    return sounds


@dataclass(frozen=True)
class Faces:
    """Middle and half width and height of people's faces in their pictures, pixels, [people]."""

    x: torch.Tensor
    y: torch.Tensor
    wide: torch.Tensor
    high: torch.Tensor

    @classmethod
    def of(cls, seeds: list[int], device: torch.device, side: int = SIDE) -> Faces:
        who = people(seeds, device)
        size = who["scale"] * side / 2
        return cls((who["x"] + 1) * side / 2, (who["y"] + 1) * side / 2, size * who["head_width"] * 1.1, size * 1.05)


class PairSampler:
    """Draws batches of pairs, on the device.

    Args:
        first: seed of the set's first person.
        count: pairs in a batch.
    """

    def __init__(self, data: Set, texts: Texts, first: int, count: int) -> None:
        self.data, self.count = data, count
        self.single = Sampler(data, texts, count)
        self.single.drop_speech = -1.0
        device = data.latents.device
        self.side = data.latents.shape[-1] * 8
        self.faces = Faces.of([first + k for k in range(len(data.image))], device, self.side)
        kinds = (data.mood * 2 + data.first).tolist()
        groups = [[row for row, kind in enumerate(kinds) if kind == wanted] for wanted in sorted(set(kinds))]
        longest = max(map(len, groups))
        self.groups = torch.tensor([(group * longest)[:longest] for group in groups], device=device)
        self.group = torch.tensor([sorted(set(kinds)).index(kind) for kind in kinds], device=device)

    def draw(self) -> tuple[torch.Tensor, Pair, torch.Tensor, torch.Tensor, torch.Tensor]:
        """See ``Sampler.draw``."""
        n, device = self.count, self.data.latents.device
        left = torch.randint(len(self.data), (n,), device=device)
        other = torch.randint(self.groups.shape[1], (n,), device=device)
        right = self.groups[self.group[left], other]
        alone = torch.rand(n, device=device) < _ALONE
        right = torch.where(alone, left, right)
        one, two = self.single.draw(left), self.single.draw(right)
        clean, known, weight = (torch.cat([one[k], two[k]], dim=-1) for k in (0, 2, 4))
        given = one[1]
        swapped = torch.rand(n, device=device) < _SWAPPED
        hears = (1 - alone.float() * (torch.rand(n, device=device) < _SILENT).float()).view(-1, 1, 1, 1, 1)
        ours, theirs = given.speech * hears, two[1].speech * hears
        which = swapped.view(-1, 1, 1, 1, 1)
        pair = Pair(
            torch.cat([given.reference, two[1].reference], dim=-1),
            given.text,
            given.image,
            torch.where(which, theirs, ours),
            torch.where(which, ours, theirs),
            self.masks(left // CLIPS, right // CLIPS, swapped),
            1 - alone.float(),
        )
        return clean, pair, known, one[3], weight

    def masks(self, left: torch.Tensor, right: torch.Tensor, swapped: torch.Tensor) -> torch.Tensor:
        """Of people of these numbers, [n, 3, tokens of a frame]; the first one's is on the right where ``swapped``."""
        n, device = len(left), left.device
        halves = torch.rand(n, 1, device=device) < _HALVES
        at = torch.arange(0, self.side, TOKEN, device=device)
        inside = (at >= int(_EDGE * self.side)) & (at < int((1 - _EDGE) * self.side))
        empty, masks = torch.zeros(n, len(at), len(at), device=device), []
        for who in (left, right):
            faces, shift = self.faces, 1 + 0.5 * torch.rand(4, n, 1, device=device)
            x, y, wide, high = (value[who, None] for value in (faces.x, faces.y, faces.wide, faces.high))
            columns = torch.where(halves, inside, (at >= x - wide * shift[0]) & (at < x + wide * shift[1]))
            rows = torch.where(halves, inside, (at >= y - high * shift[2]) & (at < y + high * shift[3]))
            masks.append((rows[:, :, None] & columns[:, None]).float())
        first, second = torch.cat([masks[0], empty], dim=2).flatten(1), torch.cat([empty, masks[1]], dim=2).flatten(1)
        which = swapped[:, None]
        found = [torch.where(which, second, first), torch.where(which, first, second), 1 - first - second]
        return torch.stack(found, dim=1)


def train(
    data: Set,
    texts: Texts,
    first: int,
    out: Path,
    seconds: float,
    whole: Whole,
    reader: FaceReader,
    trial: tuple[Trial, torch.nn.Module],
    count: int = 12,
    graph: bool = True,
    compile_blocks: bool = True,
) -> None:
    """Train for so many seconds from the weights in ``out``; writes ``FILE`` there, and a picture.

    Args:
        first: seed of the set's first person.
        trial: people held out, and the speech encoder.
    """
    device = data.latents.device
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    clock = Clock(seconds, warm_up=100, flat=0.4)
    parameters = {name: tensor.to(device, torch.float32) for name, tensor in load_file(out / ONE_FILE).items()}
    trained = {name: p.requires_grad_() for name, p in parameters.items() if any(part in name for part in TRAINED)}
    matrices = [p for n, p in trained.items() if n.startswith("blocks.") and p.dim() == 2]
    others = [p for n, p in trained.items() if not (n.startswith("blocks.") and p.dim() == 2)]
    optimizer = Optimizer(matrices, others, RATE, betas=(0.9, 0.98), average=0.998)
    for p in trained.values():
        p.grad = torch.zeros_like(p)
    network, plain = Network(CONFIG, parameters, dtype, compile_blocks and cuda), Network(CONFIG, parameters, dtype)
    sampler = PairSampler(data, texts, first, count)

    def step() -> torch.Tensor:
        torch._foreach_zero_([p.grad for p in trained.values()])
        loss = loss_of(network, sampler)
        loss.backward()
        optimizer.step()
        return loss.detach()

    run, number, last, looked = None, 0, time.monotonic(), 0
    smooth = torch.zeros((), device=device)
    while clock.part() < 1:
        optimizer.scale.fill_(clock.rate(number))
        if run is None:
            run = fastest(step, network, graph and cuda)
            print(f"two: steps ready at {clock.elapsed():.1f} s", flush=True)
        loss = run()
        smooth = loss.clone() if number == 0 else torch.lerp(smooth, loss, 0.02)
        number += 1
        if number % 20 == 0 and time.monotonic() - last > 15:
            last = time.monotonic()
            print(f"two: {clock.elapsed():.0f} s, {number} steps, loss {float(smooth):.4f}", flush=True)
            if not math.isfinite(float(smooth)):
                raise RuntimeError("the loss is not finite")
            with Averaged(optimizer):
                save(trained, out / FILE, number)
                if clock.part() > (looked + 1) / 3:
                    looked += 1
                    look(plain, whole, reader, *trial, out, f"at {clock.elapsed():.0f} s")
    optimizer.load_average()
    save(trained, out / FILE, number)
    print(f"two: {number} steps of {count} pairs", flush=True)
    look(plain, whole, reader, *trial, out, "end")


def save(trained: Parameters, path: Path, steps: int) -> None:
    """As InfiniteTalk's file of audio weights."""
    weights = {name: p.detach().to("cpu", torch.bfloat16).contiguous() for name, p in trained.items()}
    temporary = path.with_suffix(".part")
    save_file(weights, temporary, {"steps": str(steps), "speakers": "2"})
    temporary.replace(path)


def pairs_of(trial: Trial, hearing: torch.nn.Module, left: bool, right: bool) -> Pair:
    """The trial's people beside the next one, each speaking or not."""
    given, device = trial.given, trial.portraits.device
    count, frames = len(trial.portraits), given.speech.shape[1]
    following = [(k + 1) % count for k in range(count)]
    silence = encode_speech(hearing, torch.zeros_like(trial.scenes.heard[:1]))
    silent = speech_windows(silence, torch.zeros(1, device=device).long(), frames).expand_as(given.speech)
    at = torch.arange(0, trial.portraits.shape[-1], TOKEN, device=device)
    side = trial.portraits.shape[-1]
    inside = ((at >= int(_EDGE * side)) & (at < int((1 - _EDGE) * side))).float()
    half = inside[:, None] * inside[None]
    masks = torch.stack([torch.cat([half, half * 0], 1).flatten(), torch.cat([half * 0, half], 1).flatten()])
    masks = torch.cat([masks, 1 - masks.sum(0, keepdim=True)])[None].expand(count, -1, -1)
    return Pair(
        torch.cat([given.reference, given.reference[following]], dim=-1),
        given.text,
        given.image,
        given.speech if left else silent,
        given.speech[following] if right else silent,
        masks,
        torch.ones(count, device=device),
    )


@torch.no_grad()
def look(
    network: Network,
    whole: Whole,
    reader: FaceReader,
    trial: Trial,
    hearing: torch.nn.Module,
    out: Path,
    when: str,
    steps: int = 4,
) -> None:
    """Print how each mouth follows both voices, and how still a silent one is; a picture of some frames."""
    curve = trial.scenes.pose["opening"]
    count = len(trial.portraits)
    following = [(k + 1) % count for k in range(count)]
    for name, left, right in (("both", True, True), ("the left", True, False), ("the right", False, True)):
        given: Conditions = pairs_of(trial, hearing, left, right)
        video = pixels(whole, generate(network, given, steps, 5.0))
        frames, side = video.shape[2], video.shape[-1] // 2
        seen = [
            torch.stack([read_frames(reader, one[..., part].transpose(0, 1))["opening"] for one in video])[:, 4:]
            for part in (slice(0, side), slice(side, 2 * side))
        ]
        own = [curve[:, 4:frames] * left, curve[following, 4:frames] * right]
        for where, opening, mine, other in zip(("left", "right"), seen, own, own[::-1], strict=True):
            silent = not bool(mine.abs().max() > 0)
            if silent:
                text = f"silent, opening mean {float(opening.mean()):.3f} most {float(opening.max()):.3f}"
            else:
                rs = [correlation(a, b) for a, b in zip(opening, mine, strict=True)]
                text = f"r {' '.join(f'{r:.3f}' for r in rs)}"
            columns = [torch.ones_like(mine).flatten(), mine.flatten(), other.flatten()]
            slopes = torch.linalg.lstsq(torch.stack(columns, 1).cpu(), opening.flatten()[:, None].cpu()).solution
            print(f"two {when}, {name} speaking, {where}: {text}; slopes own {float(slopes[1]):.2f}", end=" ")
            print(f"other {float(slopes[2]):.2f}", flush=True)
        if left and right:
            picks = torch.linspace(0, frames - 1, 8).long().tolist()
            save_sheet(video[:6, :, picks].transpose(1, 2), out / "two.png")
