"""The real model on several CUDA cards beside one of them, in one run: forwards, messages, windows, memory.

    torchrun --nproc_per_node=2 -m infinitetalk.benchmarks.cards [--parts links bf16 ...] [--sides 480 640]

Random weights cost what trained ones do. Times of one card are taken while each card computes by itself, all at once.
Every line is told as soon as it is measured, by the first process; with --seconds no part begins later than that. With
--one_card the processes share a card and talk by gloo: what is equal shows there, and memory, but no times.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch
import torch.distributed as dist

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
from ..pipeline.parallel.cards import Cards, end_with, join, leave
from ..pipeline.parallel.division import Division
from ..pipeline.parallel.exchange import cuts, send
from ..pipeline.parallel.transformer import SharedTransformer
from ..pipeline.parallel.vae import SharedVae
from ..pipeline.parallel.weights import SharedWeights
from ..pipeline.planning.memory import VaePlan
from ..pipeline.planning.windows import tokens_per_window, window_plan
from ..pipeline.run.progress import Step
from ..pipeline.run.streaming import Inputs, Models, stream
from ..pipeline.settings.definition import Settings
from ..pipeline.settings.presets import settings_with_preset
from ..pipeline.settings.validation import resolve
from .real_size import CUDA, FRAMES, inputs, operations, real_image_encoder, real_transformer, real_vae

GIB = 2**30
SIDES = (480, 560, 640, 960)
BLOCK_BYTES = 718_700_000  # of what a step needs of a block in bf16
EIGHT_BITS = ("flash3_fp8", "cudnn_fp8")  # the first that works here
Line = tuple[str, object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--sides", nargs="+", type=int, default=list(SIDES), help="of the square picture, in pixels")
    parser.add_argument("--seconds", type=float, default=540, help="after which no other part begins")
    parser.add_argument("--one_card", action="store_true", help="all processes on the first card")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    began, cards = time.perf_counter(), join_on_one_card() if options.one_card else join("cuda")
    found: dict[str, object] = {
        "cards": f"{cards.count} x {torch.cuda.get_device_name()}",
        "torch": f"{torch.__version__}, NCCL {torch.cuda.nccl.version()}",
        "rates": str(cards.rates),
    }
    code = 0
    try:
        with torch.no_grad():
            for part in options.parts:
                if cards.agreed(lambda: time.perf_counter() - began > options.seconds):
                    break
                for name, value in PARTS[part](cards, options.sides):
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


def join_on_one_card() -> Cards:
    """Meet the other processes, all of which compute on the first card; NCCL wants one for each, gloo does not."""
    rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.cuda.set_device(0)
    dist.init_process_group("gloo", rank=rank, world_size=count)
    end_with(os.getppid())
    return Cards(rank, count, torch.device("cuda", 0))


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


def links(cards: Cards, sides: Sequence[int]) -> Iterator[Line]:
    """Messages alone: q, k and v of a block to heads, in three pieces; a block's bytes; a prediction to all."""
    block = torch.zeros(BLOCK_BYTES // cards.count * cards.count, dtype=torch.uint8, device=CUDA)
    sharing = SharedWeights(cards.everyone)
    taken = seconds(cards, lambda: sharing.gather(block), 5)
    rate = len(block) * (cards.count - 1) / cards.count / taken / 1e9
    yield "a block in bf16, gathered from its parts", f"{taken * 1000:.2f} ms, {rate:.0f} GB/s"
    for side in sides:
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
        shares: whether each card keeps a part of every block.
    """

    def __init__(self, cards: Cards, quant: str | None, shares: bool = False) -> None:
        self.cards, self.name = cards, (quant or "bf16") + ", in parts" * shares
        torch.manual_seed(0)  # one model on all cards
        sharing = SharedWeights(cards.everyone) if shares else None
        self.blocks = TransformerBlocks(CUDA, resident=REAL.num_layers, sharing=sharing)
        self.model: WanTransformer = real_transformer(self.blocks, quant)

    def in_8_bits(self) -> Iterator[Line]:
        """Attend in 8 bits from now on, as well as this card can; says why where it cannot."""
        for name in EIGHT_BITS:
            try:
                self.model.operations = operations(name, "auto")
            except InputError as error:
                yield f"attention {name}", str(error)
            else:
                return

    def call(self, side: int, passes: int) -> tuple:
        """What a forward is called with."""
        data = inputs(side, side)
        keys = (
            self.model.encode_text(data["text"], self.blocks.text),
            self.model.encode_image(data["image"], self.blocks.image),
        )
        contexts = [Context(*keys, self.model.embed_speech(data["audio"] * (1 - number))) for number in range(passes)]
        return data["latents"], data["reference"], 500.0, contexts, self.blocks

    def compared(
        self, side: int, passes: int, division: Division, repeat: int = 3, head_groups: Sequence[int] = (2,)
    ) -> Iterator[Line]:
        """Seconds by one card and by all, and how far the results differ."""
        call = self.call(side, passes)
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


def apart(cards: Cards) -> Division:
    """Two passes on these cards."""
    return Division(2, cards.count // 2)


def bf16(cards: Cards, sides: Sequence[int]) -> Iterator[Line]:
    """Forwards in 16 bits: one pass by all, and two passes apart."""
    forwards = Forwards(cards, None)
    yield "bf16: made", peaks(cards)
    for side in sides:
        yield from forwards.compared(side, 1, Division(1, cards.count), head_groups=(1, 2, 4) if side == 640 else (2,))
    yield from forwards.compared(640, 2, apart(cards), repeat=1)


def fp8(cards: Cards, sides: Sequence[int]) -> Iterator[Line]:
    """Forwards in 8 bits, by exact and by 8-bit attention."""
    forwards = Forwards(cards, "fp8")
    yield "fp8: made", peaks(cards)
    together = Division(1, cards.count)
    for side in sides:
        yield from forwards.compared(side, 1, together)
    yield from forwards.in_8_bits()
    for side in sides:
        yield from forwards.compared(side, 1, together)


def windows(cards: Cards, sides: Sequence[int]) -> Iterator[Line]:
    """Windows in 8 bits with 8-bit attention, the VAE whole and in tiles; and of preset 02 with two passes."""
    forwards, together = Forwards(cards, "fp8"), Division(1, cards.count)
    made = Windows(forwards, real_image_encoder(), real_vae(torch.bfloat16))
    yield from made.measured(640, 2, None)
    yield from made.measured(640, 2, apart(cards))
    yield from forwards.in_8_bits()
    for side in sides:
        yield from made.measured(side, 1, together)
        yield from made.measured(side, 1, together, tiles=cards.count)


def shares(cards: Cards, sides: Sequence[int]) -> Iterator[Line]:
    """A part of every block on each card: the same bits, what gathering takes, and memory, of 24 GiB at most."""
    together = Division(1, cards.count)
    for quant in (None, "fp8"):
        results, times = [], []
        for in_parts in (True, False):
            capped = in_parts and 38 / cards.count < 12
            torch.cuda.set_per_process_memory_fraction(24 * GIB / torch.cuda.mem_get_info()[1] if capped else 1.0)
            forwards = Forwards(cards, quant, in_parts)
            yield f"{forwards.name}: made" + ", with a cap of 24 GiB" * capped, peaks(cards)
            call = forwards.call(640, 1)
            shared = SharedTransformer(forwards.model, cards, lambda _: together)
            times.append(seconds(cards, partial(shared, *call)))
            results.append(shared(*call)[0])
            yield f"{forwards.name}: a pass at 640x640", f"{times[-1]:.3f} s, {peaks(cards)}"
            del forwards, shared, call
            gc.collect()
        equal = torch.equal(results[0], results[-1])
        told = f"{'the same bits' if equal else 'OTHER BITS'}, {times[0] / times[1]:.3f} times as long"
        yield f"{quant or 'bf16'}: in parts against whole", told
    torch.cuda.set_per_process_memory_fraction(1.0)


def tiles(cards: Cards, sides: Sequence[int]) -> Iterator[Line]:
    """The VAE's decoding of a window: whole on one card, and in tiles on one and on all."""
    vae = real_vae(torch.bfloat16)
    shared = SharedVae(vae, cards)
    for side in sides:
        torch.manual_seed(0)
        latents = torch.randn(16, 1 + (FRAMES - 1) // 4, side // 8, side // 8, device=CUDA)
        found: dict[str, torch.Tensor] = {}

        def keep(name: str, one: WanVAE | SharedVae, count: int, latents: torch.Tensor = latents) -> None:
            found[name] = torch.cat(list(one.decode_frames(latents, count)), dim=1)  # noqa: B023  (called at once)

        for name, one, count in (
            ("whole", vae, 1),
            (f"{cards.count} tiles on one", vae, cards.count),
            (f"{cards.count} tiles on all", shared, cards.count),
        ):
            taken = seconds(cards, lambda name=name, one=one, count=count: keep(name, one, count))
            yield f"{side}x{side}: decoding, {name}", f"{taken:.3f} s, {peaks(cards)}"
        equal = torch.equal(found[f"{cards.count} tiles on one"], found[f"{cards.count} tiles on all"])
        yield f"{side}x{side}: tiles on all against on one", "the same bits" if equal else "OTHER BITS"


class Windows:
    """Whole windows, from decoded inputs to packets on the disk."""

    def __init__(self, forwards: Forwards, image_encoder: ImageEncoder, vae: WanVAE) -> None:
        self.forwards, self.image_encoder, self.vae = forwards, image_encoder, vae

    def measured(self, side: int, passes: int, division: Division | None, tiles: int = 1) -> Iterator[Line]:
        """Two windows with the settings of preset 02, of which the second is told: the first encodes the reference.

        Args:
            division: of the cards; None: each by itself.
            tiles: of the VAE.
        """
        cards, model = self.forwards.cards, self.forwards.model
        models = Models(
            model, self.forwards.blocks, self.image_encoder, self.vae, CUDA, vae_plan=VaePlan(torch.bfloat16, tiles)
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
        what = (
            f"{self.forwards.name}, {side}x{side}, {attention}, a window of 4 steps of {passes}"
            + f", {tiles} tiles" * (tiles > 1)
        )
        told = f"{whole:.2f} s (a step {last:.3f}, the rest {rest:.2f}), {whole / new:.3f} s a second of video"
        yield f"{what}: {division or 'one card'}", f"{told}, {peaks(cards)}"


PARTS: dict[str, Callable[[Cards, Sequence[int]], Iterator[Line]]] = {
    **{"links": links, "tiles": tiles, "bf16": bf16, "fp8": fp8, "windows": windows, "shares": shares}
}

if __name__ == "__main__":
    main()
