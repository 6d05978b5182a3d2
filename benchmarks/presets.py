"""The presets at real size under a cap on the card's memory: whether they run, their peaks and their seconds.

    python -m infinitetalk.benchmarks.presets FOLDER [--cases NAME ...] [--out FILE]

Writes a whole model set of real size with random weights into FOLDER (about 75 GB: seven bf16 shards,
InfiniteTalk's file, umT5, CLIP, VAE, wav2vec2, a LoRA of rank 128 and a converted fp8 file; 42 GB where no case
needs the shards after that, 56 GB where none needs the fp8 file), then makes a video with each case through the
generator, in a process of its own whose PyTorch allocator may hold no more than the case's GiB. --vram_limit tells
the planner of the cap, as a card of that size would. A second video of one window in the same process tells how long
it takes to start again. Needs a card and 64 GB of host memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import wave
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from ..pipeline import Generator, Job
from ..pipeline.run.progress import BlockLoaded, Event, Notice, Step, WindowStarted, Working
from ..pipeline.settings.demo import ASSETS
from ..pipeline.settings.presets import settings_with_preset
from ..tests.support import random_checkpoint
from ..tests.support.random_checkpoint import Sizes, Table
from ..tests.support.random_tokenizer import write_tokenizer
from .loading import PeakOfHostMemory, write_checkpoint
from .real_size import GIB, REAL

SIZES = Sizes(
    **{"dim": 5120, "heads": 40, "layers": 40, "ffn": 13824, "vae_dim": 96},
    **{"text_dim": 4096, "text_attn": 4096, "text_ffn": 10240, "text_layers": 24},
    **{"clip_dim": 1280, "clip_layers": 32},
    **{"audio_hidden": 768, "audio_layers": 12, "audio_ffn": 3072, "audio_conv": 512, "audio_token_dim": 768},
)
SPEECH_FRAMES = 81 + 72 + 72  # three windows
RESIDENT = {"blocks_to_swap": 0, "num_persistent_param_in_dit": None, "offload_model": False}


@dataclass(frozen=True)
class Case:
    """A preset under a cap of so many GiB, with other settings where they are given.

    Attributes:
        windows: that the video has, 2 or 3.
        again: whether a second, short video follows in the same process.
    """

    name: str
    preset: str
    cap: float
    settings: dict[str, object] = field(default_factory=dict)
    windows: int = 2
    again: bool = False


CASES = (
    Case("01", "01_ultra_fast", 10),
    Case("02", "02_comfyui_equivalent", 12, again=True),
    Case("03", "03_balanced", 14),
    Case("04, two steps", "04_high_quality", 18, {"sample_steps": 2}),
    Case("05", "05_low_vram", 10),
    Case("06", "06_720p_high_res", 22),
    Case("05 in 6 GiB", "05_low_vram", 6),
    Case("02 resident in 20 GiB", "02_comfyui_equivalent", 20, RESIDENT),
    Case("06 in 12 GiB, two steps", "06_720p_high_res", 12, {"sample_steps": 2}),
    Case("02 resident, no cap", "02_comfyui_equivalent", 70, RESIDENT, windows=3, again=True),
    Case(
        *("02 resident, no cap, one pass", "02_comfyui_equivalent", 70),
        RESIDENT | {"sample_audio_guide_scale": 1.0},
        windows=3,
    ),
    Case(
        *("02 resident at 480x480, one pass, attention in 8 bits", "02_comfyui_equivalent", 70),
        RESIDENT | {"sample_audio_guide_scale": 1.0, "size": "480x480", "attention": "flash3_fp8"},
        windows=4,
    ),
)


def write_models(folder: Path, device: torch.device, shards: bool, fp8: bool) -> None:
    """A whole model set of real size, named as it is published.

    Args:
        shards: whether the bf16 shards stay once the fp8 file is made of them.
        fp8: whether that is made.
    """
    base = folder / random_checkpoint.BASE_DIR
    write_checkpoint(folder, REAL, device)  # base/, infinitetalk.safetensors, lora.safetensors
    (folder / "base").rename(base)
    words = [sys.executable, "-m", "infinitetalk", "convert", "--quant", "fp8", "--ckpt_dir", str(base)]
    words += ["--infinitetalk_dir", str(folder / "infinitetalk.safetensors")]
    if fp8:
        subprocess.run([*words, "--save_file", str(folder / "fp8.safetensors")], check=True)
    for shard in () if shards else base.glob("diffusion_pytorch_model-*.safetensors"):
        shard.unlink()
    vocabulary = write_tokenizer(base / random_checkpoint.TOKENIZER_DIR)
    tables = {
        random_checkpoint.T5_FILE: random_checkpoint.text_encoder_table(SIZES, vocabulary),
        random_checkpoint.CLIP_FILE: random_checkpoint.image_encoder_table(SIZES),
        random_checkpoint.VAE_FILE: random_checkpoint.vae_table(SIZES),
    }
    for name, table in tables.items():
        dtype = torch.float32 if name == random_checkpoint.VAE_FILE else torch.bfloat16
        torch.save(_draw(table, dtype, device), base / name)
    speech = folder / random_checkpoint.WAV2VEC_DIR
    speech.mkdir()
    random_checkpoint.write_json(speech / "config.json", random_checkpoint.speech_encoder_config(SIZES))
    random_checkpoint.write_json(speech / "preprocessor_config.json", random_checkpoint.SPEECH_PREPROCESSOR)
    weights = _draw(random_checkpoint.speech_encoder_table(SIZES), torch.float32, device)
    torch.save(weights, speech / "pytorch_model.bin")
    with wave.open(str(ASSETS / "speech.wav")) as sound:
        parameters, samples = sound.getparams(), sound.readframes(sound.getnframes())
    with wave.open(str(folder / "speech.wav"), "wb") as sound:
        sound.setparams(parameters)
        sound.writeframes(samples * 12)
    (folder / "complete").touch()


def _draw(table: Table, dtype: torch.dtype, device: torch.device) -> dict[str, torch.Tensor]:
    generator = torch.Generator(device).manual_seed(0)

    def tensor(spec: random_checkpoint.Spec) -> torch.Tensor:
        drawn = torch.empty(spec.shape, device=device).normal_(spec.mean, spec.std, generator=generator)
        return drawn.to("cpu", dtype)

    return {name: tensor(spec) for name, spec in table.items()}


@dataclass
class Watch:
    """Hears a run and notes when its parts began."""

    start: float = field(default_factory=time.perf_counter)
    denoising: float | None = None
    windows: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    start_up: list[tuple[str, float]] = field(default_factory=list)  # what began when, until the first block

    def __call__(self, event: Event) -> None:
        now = time.perf_counter() - self.start
        if self.denoising is None and not isinstance(event, BlockLoaded | Notice):
            self.start_up.append((getattr(event, "what", type(event).__name__), round(now, 2)))
        if isinstance(event, WindowStarted):
            self.windows.append(now)
        elif isinstance(event, Working) and self.windows and self.denoising is None:
            self.denoising = now
        elif isinstance(event, Step):
            torch.cuda.synchronize()
            self.steps.append(time.perf_counter() - self.start)
        elif isinstance(event, Notice):
            self.notices.append(event.text)

    def found(self, steps: int) -> dict[str, object]:
        """Seconds: until the first block ran, a whole window after the first, a step, and the rest of a window."""
        total = time.perf_counter() - self.start
        first = [times[0] for times in _parts(self.steps, steps)]
        later = [times[-1] - times[0] for times in _parts(self.steps, steps)]
        ends = [*self.windows[1:], total]
        window = ends[-2] - self.windows[-2] if len(self.windows) > 2 else ends[-1] - self.windows[-1]
        step = sum(later) / max(1, len(later) * (steps - 1))
        found = {
            "until the first block (s)": self.denoising,
            "a window after the first (s)": window,
            "a step (s)": step,
            "a window without its steps (s)": window - steps * step,
            "before the first step's end, last window (s)": first[-1] - self.windows[-1],
            "in all (s)": total,
        }
        rounded: dict[str, object] = {name: round(value, 2) for name, value in found.items() if value is not None}
        return rounded | {"what began when (s)": self.start_up}


def _parts(times: list[float], size: int) -> list[list[float]]:
    return [times[k : k + size] for k in range(0, len(times), size)]


def run_case(case: Case, folder: Path) -> dict[str, object]:
    """Make the video, in a process that has done nothing else."""
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, case.cap * GIB / total))
    base = folder / random_checkpoint.BASE_DIR
    preset = settings_with_preset(case.preset)
    given = {
        **{"ckpt_dir": base, "infinitetalk_dir": folder / "infinitetalk.safetensors"},
        **{"wav2vec_dir": folder / random_checkpoint.WAV2VEC_DIR, "overwrite": True},
        "vram_limit": case.cap,
        "lora_dir": [folder / "lora.safetensors"] if preset.lora_dir else None,
        "quant_dir": folder / "fp8.safetensors" if preset.quant else None,
        "max_frame_num": 81 + 72 * (case.windows - 1),
        "save_file": folder / "video.mp4",
        **case.settings,
    }
    settings = settings_with_preset(case.preset, **given)
    job = Job(ASSETS / "drawn_portrait.png", folder / "speech.wav", f"A person talks ({case.name}).")
    host, watch = PeakOfHostMemory(), Watch()
    generator = Generator(settings, lambda event: watch(event))
    torch.cuda.reset_peak_memory_stats()
    generator.save(job, settings.save_file)
    found = watch.found(generator.settings.sample_steps)
    found |= {
        "peak reserved (GiB)": round(torch.cuda.max_memory_reserved() / GIB, 2),
        "peak allocated (GiB)": round(torch.cuda.max_memory_allocated() / GIB, 2),
        "host (GiB)": host.gib(),
        "notices": watch.notices,
    }
    if case.again:
        watch = Watch()
        short = replace(settings, max_frame_num=81)
        generator.save(job, settings.save_file, short)
        found["the same again, until the first block (s)"] = round(watch.denoising or 0.0, 2)
        found["the same again, what began when (s)"] = watch.start_up
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", nargs="*", help="names of cases; all if left out")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    cases = {case.name: case for case in CASES}
    if options.one is not None:
        sys.stdout.write("\n" + json.dumps(run_case(cases[options.one], options.folder)) + "\n")
        return
    start = time.perf_counter()
    options.folder.mkdir(parents=True, exist_ok=True)
    if not (options.folder / "complete").exists():
        chosen = cases if options.cases is None else options.cases
        quantised = [settings_with_preset(cases[name].preset).quant is not None for name in chosen]
        write_models(options.folder, torch.device("cuda"), shards=not all(quantised), fp8=any(quantised))
        torch.cuda.empty_cache()
        print(f"written in {time.perf_counter() - start:.0f} s", flush=True)
    results: dict[str, object] = {"card": torch.cuda.get_device_name(), "torch": torch.__version__}
    for name in cases if options.cases is None else options.cases:
        words = [sys.executable, "-m", __spec__.name, str(options.folder), "--one", name]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        good = done.returncode == 0 and lines
        results[name] = json.loads(lines[-1]) if good else done.stderr.strip()[-2000:]
        print(json.dumps({name: results[name] | {"case": asdict(cases[name])} if good else results[name]}), flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
