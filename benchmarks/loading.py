"""Seconds and gigabytes of loading the real model (18.9 B parameters, random weights) from real files.

    python -m infinitetalk.benchmarks.loading FOLDER [--device cuda] [--out FILE]

Writes bf16 shards, InfiniteTalk's file and a LoRA of rank 128 into FOLDER (38 GB, then 19 GB more for a
converted file), and loads them in every way, each in a process of its own: seconds, the peak of host memory
beyond the start (pinned memory counted, file pages that the system can take back not) and of the card's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import torch

from ..pipeline.checkpoints.writing import write_safetensors
from ..pipeline.models.transformer.block import TransformerConfig
from ..pipeline.models.transformer.model import parameter_shapes
from ..pipeline.planning.machine import choose_device, choose_dtype, choose_operations
from ..pipeline.settings.definition import Settings
from ..pipeline.settings.validation import resolve
from .real_size import GIB, REAL

SHARDS = 7
RANK = 128
AUDIO_PARTS = ("audio_proj.", ".audio_cross_attn.", ".norm_x.")
SETTINGS_OF_CASES: dict[str, dict[str, object]] = {
    "bf16 shards": {},
    "bf16 shards, no block resident": {"blocks_to_swap": 40},
    "--quant fp8 while loading": {"quant": "fp8"},
    "--quant int8 while loading": {"quant": "int8"},
    "--quant int8 while loading, LoRA fused": {"quant": "int8", "lora": True},
}


def write_checkpoint(folder: Path, config: TransformerConfig, device: torch.device) -> None:
    """Official shards, InfiniteTalk's file, and a LoRA on every matrix of the base's blocks."""
    shapes = parameter_shapes(config)
    audio = {
        name: shape
        for name, shape in shapes.items()
        if any(part in f".{name}" or name.startswith(part) for part in AUDIO_PARTS)
    }
    base = {name: shape for name, shape in shapes.items() if name not in audio}
    names = list(base)
    each = -(-len(names) // SHARDS)
    for k in range(SHARDS):
        part = {name: base[name] for name in names[k * each : (k + 1) * each]}
        _write(folder / "base" / f"diffusion_pytorch_model-{k + 1:05d}-of-{SHARDS:05d}.safetensors", part, device)
    _write(folder / "infinitetalk.safetensors", audio, device)
    lora: dict[str, tuple[int, ...]] = {}
    for name, shape in base.items():
        if name.startswith("blocks.") and len(shape) == 2:
            stem = f"diffusion_model.{name.removesuffix('.weight')}"
            lora |= {f"{stem}.lora_down.weight": (RANK, shape[1]), f"{stem}.lora_up.weight": (shape[0], RANK)}
    _write(folder / "lora.safetensors", lora, device)


def _write(path: Path, shapes: dict[str, tuple[int, ...]], device: torch.device) -> None:
    generator = torch.Generator(device).manual_seed(0)

    def tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
        if "norm" in name and name.endswith("weight"):
            return torch.ones(shape, dtype=torch.bfloat16)
        return torch.randn(shape, generator=generator, device=device).mul_(0.02).bfloat16()

    specs = {name: (torch.bfloat16, shape) for name, shape in shapes.items()}
    write_safetensors(path, specs, ((name, tensor(name, shape)) for name, shape in shapes.items()), {"format": "pt"})


class PeakOfHostMemory:
    """Watches what the machine has left: pinned memory belongs to no process, and file pages can be taken back."""

    def __init__(self) -> None:
        self.start = self.least = psutil.virtual_memory().available
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.least = min(self.least, psutil.virtual_memory().available)

    def gib(self) -> float:
        self._stop.set()
        self._thread.join()
        return round((self.start - min(self.least, psutil.virtual_memory().available)) / GIB, 2)


def load_once(settings: Settings) -> dict[str, object]:
    """Load the transformer as the generator does, and tell what it took."""
    from ..pipeline.checkpoints.locate import find_transformer_files
    from ..pipeline.models.transformer.blocks import TransformerBlocks
    from ..pipeline.models.transformer.loading import load_transformer
    from ..pipeline.models.transformer.weights import open_weights

    device = choose_device(settings.device)
    dtype = choose_dtype("bf16", device)
    operations = choose_operations(settings, device, dtype)
    if device.type == "cuda":
        torch.zeros(1, device=device)
    watch = PeakOfHostMemory()
    start = time.perf_counter()
    weights = open_weights(settings, find_transformer_files(settings), operations.matmuls, dtype)
    swapped = settings.blocks_to_swap or 0
    blocks = TransformerBlocks(device, weights.size.blocks - swapped, contexts_stay=swapped == 0)
    load_transformer(weights, operations, blocks)
    if device.type == "cuda":
        torch.cuda.synchronize()
    found = {"seconds": round(time.perf_counter() - start, 1), "host peak (GiB)": watch.gib()}
    if device.type == "cuda":
        found["card, weights (GiB)"] = round(torch.cuda.memory_allocated() / GIB, 2)
        found["card, peak (GiB)"] = round(torch.cuda.max_memory_allocated() / GIB, 2)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder
    if options.case is not None:
        print(json.dumps(load_once(resolve(Settings(**json.loads(options.case))))))
        return
    device = choose_device(options.device)
    start = time.perf_counter()
    if not (folder / "lora.safetensors").exists():
        write_checkpoint(folder, REAL, device)
    print(f"written in {time.perf_counter() - start:.0f} s")
    torch.cuda.empty_cache()
    files = {"ckpt_dir": str(folder / "base"), "infinitetalk_dir": str(folder / "infinitetalk.safetensors")}
    results: dict[str, object] = {}

    def measure(name: str, **settings: object) -> None:
        if settings.pop("lora", False):
            settings |= {"lora_dir": [str(folder / "lora.safetensors")], "lora_scale": [0.8]}
        case = json.dumps({**files, **settings, "device": options.device})
        words = [sys.executable, "-m", __spec__.name, str(folder), "--case", case]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        results[name] = json.loads(done.stdout) if done.returncode == 0 else done.stderr.splitlines()[-1]
        print(f"{name:50} {results[name]}", flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")

    for name, settings in SETTINGS_OF_CASES.items():
        measure(name, **settings)
    for quant in ("fp8", "int8"):
        path = folder / f"converted_{quant}.safetensors"
        words = [sys.executable, "-m", "infinitetalk", "convert", "--quant", quant, "--save_file", str(path)]
        words += [word for name, value in files.items() for word in (f"--{name}", value)]
        start = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        results[f"convert to {quant}"] = f"{time.perf_counter() - start:.1f} s {done.stderr.splitlines()[-1:]}"
        print(f"convert to {quant}: {results[f'convert to {quant}']}", flush=True)
        measure(f"converted {quant}", quant=quant, quant_dir=str(path))
        measure(f"converted {quant}, no block resident", quant=quant, quant_dir=str(path), blocks_to_swap=40)
        path.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
