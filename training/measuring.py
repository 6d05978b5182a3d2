"""The figures of the model card: people and speech never trained on, through the engine as users run it.

Slow on purpose (no shortcuts): about half a minute for a video of six seconds on one CPU core. Writes
figures.json and measured.png, people by rows.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..pipeline.evaluation.measures import Evaluation, evaluate_frames
from ..pipeline.evaluation.reader import load_reader
from ..pipeline.job.job import Job
from ..pipeline.media.audio import Sound
from ..pipeline.run.generator import Generator
from ..pipeline.run.windows import to_uint8
from ..pipeline.settings.definition import Settings
from ..pipeline.settings.demo import FACE_READER, FOLDER, demo_settings
from .assemble import LORA_FILE
from .clips import draw_clip, draw_portraits, make_scenes
from .people import people
from .prompts import CALM
from .sheets import save_sheet

FIRST_PERSON = 910_000  # training ends far below
_LENGTH = 16_000 * 6
BASE = demo_settings(color_correction_strength=0.0, base_seed=1, dtype="fp32", kernels="plain")
LORA = BASE.replace(lora_dir=(FOLDER / LORA_FILE,), lora_scale=(1.0,))
VARIANTS = {"4 steps, LoRA": LORA, "4 steps": BASE, "20 steps": BASE.replace(sample_steps=20)}
LONG = {  # long videos beside those
    "4 steps, LoRA, colours corrected": LORA.replace(color_correction_strength=1.0),
    "4 steps, LoRA, seams as they come": LORA.replace(seam_frames=0),
}
_COLUMNS = 12  # of the picture


def portrait(number: int, folder: Path) -> Path:
    """The picture of a person held out, as a file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{FIRST_PERSON + number}.png"
    if not path.exists():
        pixels = draw_portraits(people([FIRST_PERSON + number]))[0]
        levels = ((pixels + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0)
        Image.fromarray(levels.numpy()).save(path)
    return path


def sounds(held_out: np.ndarray) -> list[np.ndarray]:
    """Twelve different speeches of six seconds."""
    return [clip[start : start + _LENGTH] for start in (0, _LENGTH) for clip in held_out]


class Measurer:
    """Makes videos with one generator and measures them."""

    def __init__(self, held_out: np.ndarray, folder: Path) -> None:
        self.folder = folder
        self.sounds = sounds(held_out)
        self.reader = load_reader(FACE_READER)[0]
        self.generators: dict[tuple, Generator] = {}

    def video(self, person: int, samples: np.ndarray, prompt: str, settings: Settings) -> np.ndarray:
        owned = (settings.lora_dir, settings.lora_scale, settings.quant)
        if owned not in self.generators:
            self.generators[owned] = Generator(settings)
        job = Job(portrait(person, self.folder), Sound(samples[None].astype(np.float32), 16_000), prompt)
        windows = self.generators[owned].windows(job, settings)
        return np.concatenate([window.frames.numpy() for window in windows])

    def measure(
        self, person: int, samples: np.ndarray, settings: Settings, prompt: str = "A person is talking."
    ) -> dict:
        started = time.monotonic()
        frames = self.video(person, samples, prompt, settings)
        length, motion = settings.frame_num, settings.motion_frame
        result = evaluate_frames(frames, samples, self.reader, range(length, len(frames), length - motion))
        return {"seconds": time.monotonic() - started, "result": result, "frames": frames}


def run(held_out: np.ndarray, out: Path, people_count: int = 6, long_windows: int = 0) -> None:
    """Measure and print; figures go to ``figures.json`` as they come."""
    measurer = Measurer(held_out, out / "portraits")
    figures: dict[str, list[dict]] = {}

    def note(name: str, result: Evaluation, **more: float) -> None:
        kept = {key: value for key, value in vars(result).items() if key not in ("spoken", "seen")}
        figures.setdefault(name, []).append({**kept, **more})
        (out / "figures.json").write_text(json.dumps(figures, indent=1))
        print(f"{name}: r {result.correlation:.3f} lag {result.best_lag} error {result.error:.3f}", end=" ")
        print(f"motion {result.motion:.2f} drift {result.colour_drift:.1f} identity {result.identity_db:.1f}", end=" ")
        print(f"background {result.background_db:.1f} seam {result.seam_ratio or 0:.2f}", more, flush=True)

    scenes = make_scenes(
        [FIRST_PERSON + k for k in range(people_count)], torch.from_numpy(held_out), [CALM] * people_count, True
    )
    for k in range(people_count):
        drawn = to_uint8(draw_clip(scenes, k, 0, _LENGTH // 640).transpose(0, 1)).numpy()
        note("as drawn", evaluate_frames(drawn, scenes.heard[k].numpy(), measurer.reader, (81,)))
    variants = {name: one for name, one in VARIANTS.items() if not one.lora_dir or one.lora_dir[0].is_file()}
    first = next(iter(variants))
    rows = []
    for name, settings in variants.items():
        for k in range(people_count):
            found = measurer.measure(k, measurer.sounds[k], settings)
            note(name, found["result"], seconds=round(found["seconds"], 1))
            for other in (k + 1, k + 2):
                wrong = measurer.sounds[other % len(measurer.sounds)]
                note(f"{name}, another's speech", evaluate_frames(found["frames"], wrong, measurer.reader))
            if name == first:
                at = np.linspace(0, len(found["frames"]) - 1, _COLUMNS).round().astype(int)
                rows.append(torch.from_numpy(found["frames"][at]).permute(0, 3, 1, 2) / 127.5 - 1)
    save_sheet(torch.stack(rows), out / "measured.png")
    silent = measurer.measure(1, np.zeros(_LENGTH // 2, np.float32), variants[first])["frames"]
    note("silence", evaluate_frames(silent, np.zeros(_LENGTH // 2, np.float32), measurer.reader))
    length = 81 + 72 * (long_windows - 1)
    speech = np.resize(np.concatenate(held_out), length * 640)
    for name, settings in {**variants, **LONG}.items() if long_windows else ():
        frames = measurer.measure(2, speech, settings)["frames"]
        for k, start in enumerate([0, *range(81, length - 71, 72)]):
            stop = start + (81 if k == 0 else 72)
            part = evaluate_frames(frames[start:stop], speech[start * 640 : stop * 640], measurer.reader)
            note(f"window of a long video, {name}", part, window=k)
        note(f"long video, {name}", evaluate_frames(frames, speech, measurer.reader, range(81, length, 72)))
