"""Clips of one window by a batch on one card and on all, beside single commands, at real size with random weights.

    python -m infinitetalk.benchmarks.batch FOLDER [--clips 8] [--preset 02_comfyui_equivalent] [--out FILE]

Writes the models of benchmarks.presets into FOLDER if they are not there (56 GB). Clips have prompts of their own. Says
what a clip costs by a command of its own and by one worker, what that saves, and how near all cards come to as many
times one, each card making as many clips. About ten minutes with eight clips on one card.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from ..pipeline.settings.demo import ASSETS
from ..pipeline.settings.presets import settings_with_preset
from ..tests.support import random_checkpoint
from .presets import RESIDENT, write_models

SINGLES = 2  # commands of their own that are timed; the second finds files in the system's cache, as later clips do


class Clips:
    """A folder with models, in which clips are made."""

    def __init__(self, folder: Path, preset: str) -> None:
        self.folder = folder
        base = folder / random_checkpoint.BASE_DIR
        chosen = settings_with_preset(preset)
        given = {
            **{"preset": preset, "ckpt_dir": base, "infinitetalk_dir": folder / "infinitetalk.safetensors"},
            **{"wav2vec_dir": folder / random_checkpoint.WAV2VEC_DIR, "max_frame_num": 81},
            **({"lora_dir": folder / "lora.safetensors"} if chosen.lora_dir else {}),
            **({"quant_dir": folder / "fp8.safetensors"} if chosen.quant else {}),
            **{name: value for name, value in RESIDENT.items() if value is not None},
        }
        self.flags = [f"--{name}={value}" for name, value in given.items()]

    def run(self, words: list[str]) -> float:
        """Seconds of a process."""
        began = time.perf_counter()
        own = {**os.environ, "INFINITETALK_CACHE": str(self.folder / "cache")}
        subprocess.run([sys.executable, "-m", "infinitetalk", *words], check=True, env=own, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    def anew(self) -> Path:
        """The folder of the videos, empty; and no prompt is in the cache."""
        out = self.folder / "videos"
        for folder in (out, self.folder / "cache"):
            shutil.rmtree(folder, ignore_errors=True)
        return out

    def batch(self, count: int, workers: int) -> tuple[float, list[float]]:
        """Seconds of a batch, and of each clip in it."""
        out, manifest = self.anew(), self.folder / "jobs.jsonl"
        manifest.write_text("".join(json.dumps(self.job(number)) + "\n" for number in range(count)))
        seconds = self.run(["batch", str(manifest), "--out", str(out), "--workers", str(workers), *self.flags])
        results = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
        return seconds, [result["seconds"] for result in results]

    def single(self, number: int) -> float:
        """Seconds of a clip by a command of its own."""
        words = [f"--{name}={value}" for name, value in self.job(number).items() if name != "id"]
        return self.run([*self.flags, *words, f"--save_file={self.folder / 'videos' / f'single{number}.mp4'}"])

    def job(self, number: int) -> dict[str, object]:
        """A clip with a prompt and a seed of its own."""
        files = {"image": str(ASSETS / "drawn_portrait.png"), "audio": str(self.folder / "speech.wav")}
        return {"id": f"{number:04d}", **files, "prompt": f"Person {number} is talking.", "base_seed": number}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=8, help="of one card")
    parser.add_argument("--preset", default="02_comfyui_equivalent")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "complete").exists():
        write_models(options.folder, torch.device("cuda"), shards=False, fp8=True)
        torch.cuda.empty_cache()
    clips, cards = Clips(options.folder, options.preset), torch.cuda.device_count()
    found: dict[str, object] = {"cards": f"{cards} x {torch.cuda.get_device_name()}", "torch": torch.__version__}

    def tell(name: str, value: object) -> None:
        found[name] = round(value, 3) if isinstance(value, float) else value
        print(f"{name:58} {found[name]}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")

    clips.anew()
    single = [clips.single(1000 + number) for number in range(SINGLES)][-1]
    tell("a clip by a command of its own (s)", single)
    one, each = clips.batch(options.clips, 1)
    tell(f"{options.clips} clips by one worker (s)", one)
    tell(
        "the first of them, with the models; the median of the others (s)", [each[0], sorted(each[1:])[len(each) // 2]]
    )
    tell("a clip by one worker (s)", one / options.clips)
    tell("saved for each clip (s)", single - one / options.clips)
    if cards > 1:
        all_cards, _ = clips.batch(options.clips * cards, cards)
        tell(f"{options.clips * cards} clips by {cards} workers (s)", all_cards)
        tell("of the ideal", one / all_cards)


if __name__ == "__main__":
    main()
