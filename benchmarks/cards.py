"""The real model on several CUDA cards beside one of them, in one run: forwards, messages, windows, memory.

    torchrun --nproc_per_node=2 -m infinitetalk.benchmarks.cards [--parts links bf16 fp8 windows] [--out FILE]

Random weights cost what trained ones do. Times of one card are taken while each card computes by itself, all at once.
Every line is told as soon as it is measured, by the first process. On two H200 about five minutes.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch

from ..pipeline.errors import InputError
from ..pipeline.facts.model_sizes import WAN_14B as REAL
from ..pipeline.media.reference import open_reference
from ..pipeline.media.writer import VideoWriter
from ..pipeline.models.image_encoder import ImageEncoder
from ..pipeline.models.speech_features import features_from_tensor
from ..pipeline.models.transformer.blocks import TransformerBlocks
from ..pipeline.models.transformer.model import Context, WanTransformer
from ..pipeline.models.vae.model import WanVAE
from ..pipeline.parallel import sequence
from ..pipeline.parallel.cards import Cards, join, leave
from ..pipeline.parallel.division import Division
from ..pipeline.parallel.exchange import cuts, send
from ..pipeline.parallel.transformer import SharedTransformer
from ..pipeline.parallel.vae import SharedVae
from ..pipeline.planning.memory import VaePlan
from ..pipeline.planning.windows import tokens_per_window, window_plan
from ..pipeline.run.progress import Step
from ..pipeline.run.streaming import Inputs, Models, stream
from ..pipeline.settings.definition import Settings
from ..pipeline.settings.presets import settings_with_preset
from ..pipeline.settings.validation import resolve
from .real_size import CUDA, FRAMES, inputs, operations, real_image_encoder, real_transformer, real_vae

GIB = 2**30
EIGHT_BITS = ("flash3_fp8", "cudnn_fp8")  # the first that works here
Line = tuple[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    began, cards = time.perf_counter(), join("cuda")
    found: dict[str, object] = {
        "cards": f"{cards.count} x {torch.cuda.get_device_name()}",
        "torch": f"{torch.__version__}, NCCL {torch.cuda.nccl.version()}",
    }
    code = 0
    try:
        with torch.no_grad():
            for part in options.parts:
                for name, value in PARTS[part](cards):
                    found[name] = value
                    if cards.first:
                        print(f"{time.perf_counter() - began:6.0f} s  {name:64} {value}", flush=True)
                        if options.out:
                            options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
                gc.collect()
                torch.cuda.empty_cache()
    except BaseException:
        code = 1
        raise
    finally:
        sys.stdout.flush()
        if code == 0:
            cards.wait()
            leave(0)


def seconds(cards: Cards, work: Callable[[], object], repeat: int = 3) -> float:
    """Median of timed runs after one warm-up, which all cards begin together."""
    work()
    times = []
    for _ in range(repeat):
        torch.cuda.synchronize()
        cards.wait()
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(start.elapsed_time(stop) / 1000)
    return statistics.median(times)


def peaks(cards: Cards) -> str:
    """GiB that each card has held at most since the last time."""
    found = cards.gathered(torch.cuda.max_memory_reserved() / GIB)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return ", ".join(f"{each:.1f}" for each in found) + " GiB"


def links(cards: Cards) -> Iterator[Line]:
    """Messages alone: q, k and v of a block to heads, in three pieces; a prediction to all."""
    for side in (480, 640, 960):
        exchange, leaving = qkv(cards, tokens_per_window(FRAMES, side, side))
        taken = seconds(cards, exchange, 5)
        yield f"{side}x{side}: q, k and v of a block", f"{taken * 1000:.2f} ms, {leaving / taken / 1e9:.0f} GB/s"
    prediction = torch.randn(16, 21, 80, 80, device=CUDA)
    taken = seconds(cards, lambda: cards.same(prediction), 5)
    yield "a prediction of 640x640 from one card to the others", f"{taken * 1000:.3f} ms"


def qkv(cards: Cards, tokens: int) -> tuple[Callable[[], object], int]:
    """The messages of q, k and v of a block, and how many bytes leave this card."""
    group, head_dim = cards.groups(Division(1, cards.count)).sequence, REAL.dim // REAL.num_heads
    heads, places = (list(pairwise(cuts(size, cards.count))) for size in (REAL.num_heads, tokens))
    share = [stop - start for start, stop in places]
    x = torch.randn(share[cards.rank], REAL.num_heads, head_dim, device=CUDA, dtype=torch.bfloat16)
    row = torch.Size((heads[cards.rank][1] - heads[cards.rank][0], head_dim))

    def exchange() -> None:
        for arriving in [send(group, [x[:, start:stop] for start, stop in heads], share, row) for _ in range(3)]:
            arriving.wait()

    return exchange, 3 * x.nbytes * (cards.count - 1) // cards.count


class Forwards:
    """One model of real size, its forwards by one card and by all.

    Args:
        quant: "fp8" for the blocks' matrices, None for bf16.
    """

    def __init__(self, cards: Cards, quant: str | None) -> None:
        self.cards, self.name = cards, quant or "bf16"
        torch.manual_seed(0)  # one model on all cards
        self.blocks = TransformerBlocks(CUDA, resident=REAL.num_layers)
        self.model: WanTransformer = real_transformer(self.blocks, quant)

    def compared(
        self, side: int, passes: int, division: Division, repeat: int = 3, head_groups: Sequence[int] = (2,)
    ) -> Iterator[Line]:
        """Seconds by one card and by all, and how far the results differ."""
        data = inputs(side, side)
        keys = (
            self.model.encode_text(data["text"], self.blocks.text),
            self.model.encode_image(data["image"], self.blocks.image),
        )
        contexts = [Context(*keys, self.model.embed_speech(data["audio"] * (1 - number))) for number in range(passes)]
        call = data["latents"], data["reference"], 500.0, contexts, self.blocks
        what = f"{self.name}, {side}x{side}, {self.model.operations.attend.name}, {passes} pass{'es' * (passes > 1)}"
        results: dict[str, list[torch.Tensor]] = {}

        def keep(name: str, model: Callable[..., list[torch.Tensor]]) -> None:
            results[name] = model(*call)

        alone = seconds(self.cards, lambda: keep("one", self.model), repeat)
        yield f"{what}: one card", f"{alone:.3f} s, {peaks(self.cards)}"
        for groups in head_groups:
            sequence.HEAD_GROUPS = groups
            shared = SharedTransformer(self.model, self.cards, lambda _: division)
            taken = seconds(self.cards, lambda shared=shared: keep("all", shared), repeat)
            equal = all(map(torch.equal, results["one"], results["all"]))
            one, other = torch.stack(results["one"]), torch.stack(results["all"])
            apart = "the same bits" if equal else f"{((one - other).norm() / one.norm()).item():.1e} apart"
            in_groups = f" (heads in {groups} groups)" if division.sequence > 1 else ""
            told = f"{taken:.3f} s, {alone / taken:.3f}x, {apart}, {peaks(self.cards)}"
            yield f"{what}: {division}{in_groups}", told
        sequence.HEAD_GROUPS = 2


def bf16(cards: Cards) -> Iterator[Line]:
    """Forwards in 16 bits."""
    forwards = Forwards(cards, None)
    yield "bf16: made", peaks(cards)
    together = Division(1, cards.count)
    yield from forwards.compared(640, 1, together, head_groups=(1, 2, 4))
    if cards.count == 2:
        yield from forwards.compared(640, 2, Division(2, 1), repeat=1)


def fp8(cards: Cards) -> Iterator[Line]:
    """Forwards in 8 bits, by exact and by 8-bit attention; then windows of preset 02 and of one pass."""
    forwards = Forwards(cards, "fp8")
    yield "fp8: made", peaks(cards)
    together = Division(1, cards.count)
    yield from forwards.compared(640, 1, together, head_groups=(1, 2, 4))
    yield from forwards.compared(960, 1, together, repeat=1)
    exact, rounded = forwards.model.operations, None
    for name in EIGHT_BITS:
        try:
            rounded = rounded or operations(name, "auto")
        except InputError as error:
            yield f"attention {name}", str(error)
    if rounded is not None:
        forwards.model.operations = rounded
        yield from forwards.compared(640, 1, together, head_groups=(1, 2))
    windows = Windows(forwards, real_image_encoder(), real_vae(torch.bfloat16))
    for side in (480, 560, 640):
        yield from windows.measured(side, 1, together)
    forwards.model.operations = exact
    preset = Division(2, 1) if cards.count == 2 else Division(2, cards.count // 2)
    yield from windows.measured(640, 2, None)
    yield from windows.measured(640, 2, preset)


class Windows:
    """Whole windows, from decoded inputs to packets on the disk."""

    def __init__(self, forwards: Forwards, image_encoder: ImageEncoder, vae: WanVAE) -> None:
        self.forwards, self.image_encoder, self.vae = forwards, image_encoder, vae

    def measured(self, side: int, passes: int, division: Division | None) -> Iterator[Line]:
        """Two windows with the settings of preset 02, of which the second is told: the first encodes the reference.

        Args:
            division: of the cards; None: each by itself.
        """
        cards, model = self.forwards.cards, self.forwards.model
        models = Models(
            model, self.forwards.blocks, self.image_encoder, self.vae, CUDA, vae_plan=VaePlan(torch.bfloat16)
        )
        if division is not None:
            shared = SharedTransformer(model, cards, lambda _: division)
            models = replace(models, transformer=shared, vae=SharedVae(self.vae, cards))
        preset = settings_with_preset("02_comfyui_equivalent", lora_dir=None, lora_scale=Settings.lora_scale)
        audio = 1.0 if passes == 1 else preset.sample_audio_guide_scale
        settings = resolve(preset.replace(size=f"{side}x{side}", sample_audio_guide_scale=audio, offload_model=None))
        torch.manual_seed(0)
        speech = features_from_tensor(torch.randn(2 * FRAMES - 9, 12, 768), None)
        reference = open_reference(Path(__file__).parent.parent / "assets" / "portrait.png")
        spans = window_plan(2 * FRAMES - 9, settings.frame_num, settings.motion_frame)
        marks: list[tuple[bool, float]] = []

        def listen(event: object) -> None:
            if isinstance(event, Step):
                torch.cuda.synchronize()
                marks.append((True, time.perf_counter()))

        cards.wait()
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            prompt = torch.randn(60, REAL.text_dim)
            made = Inputs(reference, speech, prompt, prompt)
            writer = None
            if cards.first or division is None:
                writer = stack.enter_context(VideoWriter(Path(folder) / "out.mp4", side, side))
            for window, _ in stream(models, made, settings, spans, listen):
                torch.cuda.synchronize()
                decoded, steps = time.perf_counter(), [at for _, at in marks]
                whole, marks = decoded - began, []
                last = steps[-1] - steps[-2]
                rest = whole - len(steps) * last
                if writer is not None and window.index == 0:
                    writer.write_window(window.frames)
                began = time.perf_counter()
        new = (settings.frame_num - settings.motion_frame) / 25
        attention = model.operations.attend.name
        what = f"{self.forwards.name}, {side}x{side}, {attention}, a window of 4 steps of {passes}"
        told = f"{whole:.2f} s (a step {last:.3f}, the rest {rest:.2f}), {whole / new:.3f} s a second of video"
        yield f"{what}: {division or 'one card'}", f"{told}, {peaks(cards)}"


PARTS: dict[str, Callable[[Cards], Iterator[Line]]] = {"links": links, "bf16": bf16, "fp8": fp8}

if __name__ == "__main__":
    main()
