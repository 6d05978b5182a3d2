"""What leaving out passes through the transformer does: guidance by the speech in some steps alone, and TeaCache.

    python -m infinitetalk.benchmarks.passes [--parts guidance teacache skipped] [--device cuda] [--out FILE]

The first window of the bundled portrait and speech by the bundled demo model in float32: passes that ran, PSNR of the
frames against those of all passes, Pearson's r of the mouth and the speech, and by how much the mouth opens for what
the speech asks for (slope; 1: as asked). TeaCache with the settings of preset 04. ``skipped`` is what a pass that is
left out still costs at real size. On a card a minute, on a CPU an hour.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ..pipeline import Generator
from ..pipeline.evaluation.measures import evaluate_frames
from ..pipeline.evaluation.reader import load_reader
from ..pipeline.facts.model_sizes import WAN_14B
from ..pipeline.media.audio import open_audio
from ..pipeline.media.speech import speech_for_model
from ..pipeline.models.transformer.attention import choose_attention
from ..pipeline.models.transformer.block import Operations
from ..pipeline.models.transformer.files import weight_dtype
from ..pipeline.models.transformer.model import WanTransformer
from ..pipeline.models.transformer.pointwise import choose_pointwise
from ..pipeline.planning.machine import choose_dtype
from ..pipeline.settings.demo import FACE_READER, demo_settings
from .accuracy import psnr
from .demo_accuracy import FRAMES, JOB, in_floats
from .quantised import Result, Results, attempt, tell

SETTLED = 4  # frames at the beginning, which are the portrait's
GUIDANCE = ((4, 1.0, 2.0), (4, 1.0, 3.0), (4, 5.0, 3.0), (20, 1.0, 3.0))  # steps, by the prompt, by the speech
PRESET_04 = {
    **{"sample_shift": 7.0, "sample_text_guide_scale": 5.0, "sample_audio_guide_scale": 4.0, "use_apg": True},
    "use_teacache": True,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--out", type=Path, help="file that the lines are appended to")
    options = parser.parse_args()
    for part in options.parts:
        for what, work in PARTS[part](torch.device(options.device)):
            tell(options.out, {"part": part, **what, **attempt(work)})


class Demo:
    """Windows of the demo model, each measured against one that has all passes."""

    def __init__(self, device: torch.device) -> None:
        self.settings = demo_settings(max_frame_num=FRAMES, device=device.type, dtype="fp32")
        self.generator = Generator(self.settings)
        self.speech = speech_for_model(open_audio(JOB.speech))[:]
        self.reader, _ = load_reader(FACE_READER)
        self.whole: torch.Tensor | None = None

    def window(self, changes: dict[str, object], whole: bool = False) -> Result:
        """Make it and measure it; ``whole``: it has all passes."""
        with counted() as passes:
            (window,) = self.generator.windows(JOB, self.settings.replace(**changes))
        if whole:
            self.whole = window.frames
        found = evaluate_frames(window.frames.numpy(), self.speech, self.reader)
        asked, seen = np.array(found.spoken)[SETTLED:], np.array(found.seen)[SETTLED:]
        return {
            **{"passes": passes.ran, "left out": passes.skipped},
            "dB": None if whole else psnr(in_floats(window.frames), in_floats(self.whole)),
            **{"r": round(found.correlation, 4), "slope": round(float(np.polyfit(asked, seen, 1)[0]), 3)},
        }


@dataclass
class Passes:
    """Branches of forwards whose blocks ran, and of those whose blocks did not."""

    ran: int = 0
    skipped: int = 0


@contextmanager
def counted() -> Iterator[Passes]:
    """Count the passes of every transformer meanwhile."""
    passes, forward, run_blocks = Passes(), WanTransformer.forward, WanTransformer.run_blocks

    def counting_forward(self: WanTransformer, *arguments: object) -> list[torch.Tensor]:
        before = passes.ran
        velocities = forward(self, *arguments)
        passes.skipped += 0 if passes.ran > before else len(velocities)
        return velocities

    def counting_blocks(self: WanTransformer, branches: list[torch.Tensor], *arguments: object) -> None:
        passes.ran += len(branches)
        run_blocks(self, branches, *arguments)

    WanTransformer.forward, WanTransformer.run_blocks = counting_forward, counting_blocks
    try:
        yield passes
    finally:
        WanTransformer.forward, WanTransformer.run_blocks = forward, run_blocks


def guidance(device: torch.device) -> Results:
    demo = Demo(device)
    for steps, text, audio in GUIDANCE:
        scales = {"sample_steps": steps, "sample_text_guide_scale": text, "sample_audio_guide_scale": audio}

        def window(guided: int | None, scales: dict[str, object] = scales) -> Result:
            return demo.window({**scales, "sample_audio_guide_steps": guided}, whole=guided is None)

        name = {"steps": steps, "by the prompt": text, "by the speech": audio}
        for guided in (None, 3 * steps // 4, steps // 2, steps // 4):
            yield {**name, "guided": guided or steps}, lambda guided=guided, window=window: window(guided)
        none = {**scales, "sample_audio_guide_scale": 1.0}
        yield {**name, "guided": 0}, lambda none=none: demo.window(none)


def teacache(device: torch.device) -> Results:
    demo = Demo(device)
    for steps in (40, 20):
        same = {**PRESET_04, "sample_steps": steps}
        yield {"steps": steps, "threshold": None}, lambda same=same: demo.window({**same, "use_teacache": False}, True)
        for threshold in (0.1, 0.2, 0.3):
            changes = {**same, "teacache_thresh": threshold}
            yield {"steps": steps, "threshold": threshold}, lambda changes=changes: demo.window(changes)


def skipped(device: torch.device) -> Results:
    """Embedding, head and the sum with the residual are what is left of a pass: a transformer without blocks."""
    side = 640 if device.type == "cuda" else 192
    yield {"of the real model at": f"{side}x{side}"}, lambda: left_of_a_pass(device, side // 8)


@dataclass
class Skipping:
    """A ``StepCache`` that always skips."""

    residuals: list[torch.Tensor] = field(default_factory=list)

    def must_compute(self, modulation: torch.Tensor) -> bool:
        return False


@torch.no_grad()
def left_of_a_pass(device: torch.device, side: int) -> Result:
    config, dtype = replace(WAN_14B, num_layers=0), choose_dtype("auto", device)
    operations = Operations(choose_attention("sdpa", device, dtype), choose_pointwise("plain", device))
    with torch.device("meta"):
        model = WanTransformer(config, operations)
    for name, parameter in list(model.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        new = 0.02 * torch.randn(parameter.shape, device=device).to(weight_dtype(dtype, name))
        model.get_submodule(owner).register_parameter(leaf, torch.nn.Parameter(new, requires_grad=False))
    latents = torch.randn(config.out_channels, 21, side, side, device=device)
    reference = torch.randn(config.in_channels - config.out_channels, 21, side, side, device=device)
    residual = torch.randn(21 * side * side // 4, config.dim, device=device, dtype=dtype)
    times = []
    for _ in range(6):
        start = time.perf_counter()
        (velocity,) = model(latents, reference, 500.0, [None], [], Skipping([residual]))
        velocity[0, 0, 0, 0].item()  # waits
        times.append(time.perf_counter() - start)
    return {"ms": round(1000 * sorted(times[1:])[2], 2)}


PARTS = {"guidance": guidance, "teacache": teacache, "skipped": skipped}


if __name__ == "__main__":
    main()
