"""How seconds and gigabytes grow with the frames of a window, the picture's size and the number of windows.

    python -m infinitetalk.benchmarks.growth --out growth.json [--parts frames sizes windows]
    python -m infinitetalk.benchmarks.growth --plot growth.json growth.svg

The transformer of real size in fp8 with all blocks resident, random weights: one forward of one pass, and the
VAE in bf16 decoding the window. Windows: 20 of them at 320x320 with one step each, what each takes and what the
process holds after it. The plot is made from the file, on any machine.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
import torch

from ..pipeline.media.reference import open_reference
from ..pipeline.models.speech_features import features_from_tensor
from ..pipeline.models.transformer.blocks import TransformerBlocks
from ..pipeline.models.transformer.model import Context, WanTransformer
from ..pipeline.planning.windows import latent_frames, tokens_per_window, window_plan
from ..pipeline.run.streaming import Inputs, Models, stream
from ..pipeline.settings.definition import Settings
from ..pipeline.settings.validation import resolve
from .real_size import CUDA, GIB, REAL, peak, real_image_encoder, real_transformer, real_vae, seconds

FRAMES = (41, 81, 121, 161)
SIDES = (480, 560, 640, 720, 960)
SIDE, LENGTH = 640, 81
WINDOWS = 20
Row = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["frames", "sizes", "windows"])
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--plot", nargs=2, type=Path, metavar=("JSON", "SVG"))
    options = parser.parse_args()
    if options.plot:
        found = json.loads(options.plot[0].read_text(encoding="utf-8"))
        options.plot[1].write_text(plot(found), encoding="utf-8")
        return
    blocks = TransformerBlocks(CUDA, resident=REAL.num_layers)
    model = real_transformer(blocks, "fp8")
    parts = {
        "frames": lambda: (row(model, blocks, frames, SIDE) for frames in FRAMES),
        "sizes": lambda: (row(model, blocks, LENGTH, side) for side in SIDES),
        "windows": lambda: windows(model, blocks),
    }
    results: dict[str, object] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    for part in options.parts:
        rows = []
        for found in attempts(parts[part]()):
            rows.append(found)
            print(part, json.dumps(found), flush=True)
            results[part] = rows
            if options.out:
                options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")
        torch.cuda.empty_cache()


def attempts(rows: Iterable[Row]) -> Iterator[Row]:
    """The rows until one fails."""
    try:
        yield from rows
    except RuntimeError as error:
        print(f"stopped: {error}", flush=True)


@torch.no_grad()
def row(model: WanTransformer, blocks: TransformerBlocks, frames: int, side: int) -> Row:
    """A window of so many frames of side x side pixels."""
    shape = latent_frames(frames), side // 8, side // 8
    text = model.encode_text(torch.randn(60, REAL.text_dim, device=CUDA), blocks.text)
    image = model.encode_image(torch.randn(257, REAL.image_dim, device=CUDA), blocks.image)
    contexts = [Context(text, image, model.embed_speech(torch.randn(frames, 5, 12, 768, device=CUDA)))]
    latents, reference = torch.randn(16, *shape, device=CUDA), torch.randn(20, *shape, device=CUDA)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    forward = seconds(lambda: model(latents, reference, 500.0, contexts, blocks), repeat=2)
    beyond = torch.cuda.max_memory_allocated() - before
    vae = real_vae(torch.bfloat16)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    decode = seconds(lambda: sum(1 for _ in vae.decode_frames(latents)), repeat=1)
    return {
        "frames": frames,
        "side": side,
        "tokens": tokens_per_window(frames, side, side),
        "forward (s)": forward,
        "a forward beyond the weights (GiB)": round(beyond / GIB, 2),
        "decode (s)": decode,
        "decoding (GiB)": round((torch.cuda.max_memory_allocated() - before) / GIB, 2),
    }


def windows(model: WanTransformer, blocks: TransformerBlocks) -> Iterator[Row]:
    """Each window of a long video: what it takes, and what is held after it."""
    side = 320
    models = Models(model, blocks, real_image_encoder(), real_vae(torch.bfloat16), CUDA)
    guidance = {"sample_text_guide_scale": 1.0, "sample_audio_guide_scale": 1.0}
    settings = resolve(Settings(size=f"{side}x{side}", sample_steps=1, **guidance))
    total = settings.frame_num + (WINDOWS - 1) * (settings.frame_num - settings.motion_frame)
    speech = features_from_tensor(torch.randn(total, 12, 768), None)
    reference = open_reference(Path(__file__).parent.parent / "assets" / "drawn_portrait.png")
    prompt = torch.randn(60, REAL.text_dim)
    inputs = Inputs(reference, speech, prompt, prompt)
    spans = window_plan(total, settings.frame_num, settings.motion_frame)
    torch.cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    for window, _ in stream(models, inputs, settings, spans):
        torch.cuda.synchronize()
        now = time.perf_counter()
        yield {
            "window": window.index + 1,
            "seconds": round(now - start, 2),
            "card, held (GiB)": round(torch.cuda.memory_allocated() / GIB, 3),
            "card, peak (GiB)": peak(),
            "host (MiB)": round(psutil.Process().memory_info().rss / 2**20),
        }
        start = now


PLOTS = (
    ("frames", "frames", "forward (s)", "frames of a window, 640x640", "a forward, seconds"),
    ("sizes", "side", "forward (s)", "side of the picture in pixels, 81 frames", "a forward, seconds"),
    ("sizes", "side", "decode (s)", "side of the picture in pixels, 81 frames", "decoding a window, seconds"),
    ("windows", "window", "seconds", "number of the window, 320x320, one step", "a window, seconds"),
)
COLUMNS = 2
WIDTH, HEIGHT = 380, 230  # of one plot
LEFT, RIGHT, TOP, BOTTOM = 48, 20, 36, 50  # around its curve


def plot(found: dict[str, list[Row]]) -> str:
    """The rows as small curves, two beside each other, in SVG."""
    drawn = [one for one in PLOTS if one[0] in found]
    width, height = WIDTH * COLUMNS, HEIGHT * math.ceil(len(drawn) / COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12" fill="#333">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, (part, across, up, below, above) in enumerate(drawn):
        row, column = divmod(number, COLUMNS)
        parts.append(f'<g transform="translate({column * WIDTH},{row * HEIGHT})">{_curve(found[part], across, up)}')
        parts.append(f'<text x="{LEFT}" y="22" font-weight="bold">{above}</text>')
        middle = (LEFT + WIDTH - RIGHT) / 2
        parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - 14}" text-anchor="middle">{below}</text></g>')
    return "\n".join([*parts, "</svg>\n"])


def _curve(rows: list[Row], across: str, up: str) -> str:
    points = sorted((r[across], r[up]) for r in rows)
    left, right = points[0][0], points[-1][0]
    step = _round_step(max(y for _, y in points) / 3)
    lines = math.ceil(max(y for _, y in points) / step)
    wide, tall = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return LEFT + wide * (x - left) / max(right - left, 1), TOP + tall * (1 - y / (lines * step))

    marks = []
    for k in range(lines + 1):
        _, y = place(left, k * step)
        marks.append(f'<path d="M{LEFT} {y:.1f}H{LEFT + wide}" stroke="{"#999" if k == 0 else "#ddd"}"/>')
        marks.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{k * step:g}</text>')
    for x in (left, right) if len(points) > 6 else (x for x, _ in points):
        marks.append(f'<text x="{place(x, 0)[0]:.0f}" y="{TOP + tall + 16}" text-anchor="middle">{x:g}</text>')
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in (place(*p) for p in points))
    marks.append(f'<polyline points="{line}" fill="none" stroke="#286ec8" stroke-width="2"/>')
    marks += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3" fill="#286ec8"/>' for a, b in (place(*p) for p in points)]
    return "".join(marks)


def _round_step(least: float) -> float:
    """The next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(n * power for n in (1, 2, 5, 10) if n * power >= least)


if __name__ == "__main__":
    main()
