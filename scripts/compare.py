"""Upstream's script and this engine on one window, with the same noise: PSNR, seconds and gigabytes side by side.

``python -m infinitetalk.scripts.compare UPSTREAM [flags as for a video]`` (``make compare UPSTREAM=... FLAGS=...``),
with the environment that upstream needs. Each runs in a process of its own, upstream's first: its own draw of noise is
kept and given to ours. Without flags, small random files stand in for the weights, in float32 on the CPU, to show that
all works. Knows what upstream's script is made of; measures and compares, and judges nothing.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch

from ..pipeline.errors import InputError
from ..pipeline.export.exported import Exported
from ..pipeline.export.upstream import upstream_run
from ..pipeline.facts.sizes import GIB
from ..pipeline.job.job import load_job
from ..pipeline.run.generator import Generator
from ..pipeline.run.windows import to_uint8
from ..pipeline.settings.definition import NEGATIVE_PROMPT, Settings
from ..pipeline.settings.flags import parse, to_argv
from ..pipeline.settings.validation import resolve

THEIRS, OURS = "theirs.pt", "ours.pt"
SMALL = "small"  # a folder's name: what is in it is from ``small_files``


@dataclass(frozen=True)
class Made:
    """One window by one of the two.

    Attributes:
        frames: uint8 [T, H, W, 3].
        seconds: of the process's work, loading included.
        gigabytes: at the peak, on the card, or of the process on a CPU.
    """

    frames: torch.Tensor
    seconds: float
    gigabytes: float


def psnr(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """dB between 8-bit frames, over those that both have; infinite where they are equal."""
    count = min(len(ours), len(theirs))
    error = (ours[:count].double() - theirs[:count].double()).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def table(theirs: Made, ours: Made) -> str:
    """Both side by side."""
    rows = [
        ("", "upstream", "here"),
        ("frames", f"{len(theirs.frames)}", f"{len(ours.frames)}"),
        ("seconds", f"{theirs.seconds:.1f}", f"{ours.seconds:.1f}"),
        ("gigabytes", f"{theirs.gigabytes:.1f}", f"{ours.gigabytes:.1f}"),
    ]
    lines = [f"{name:<12}{one:>12}{other:>12}" for name, one, other in rows]
    return "\n".join([*lines, f"PSNR over the common frames: {psnr(ours.frames, theirs.frames):.1f} dB"])


def main(words: list[str]) -> int:
    """Run both and print the table.

    Raises:
        InputError: there is no upstream, or flags are not right.
    """
    if not words or not (Path(words[0]) / "wan" / "multitalk.py").is_file():
        raise InputError("compare: give the folder of a clone of MeiGen-AI/InfiniteTalk (make compare UPSTREAM=DIR).")
    upstream, flags = Path(words[0]).absolute(), words[1:]
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        if not flags:
            flags = small_files(work / SMALL)
        settings = _absolute(resolve(parse([*flags, "--mode", "clip"])))
        (work / "flags.json").write_text(json.dumps(to_argv(settings, True)), encoding="utf-8")
        for part in ("upstream", "here"):
            command = [sys.executable, "-m", __spec__.name, f"--{part}", str(upstream), str(work)]
            if subprocess.run(command, check=False).returncode != 0:
                raise InputError(f"compare: the run of {part} failed; what it said is above.")
        theirs, ours = (_read(work / name) for name in (THEIRS, OURS))
    print(table(theirs, ours))
    return 0


def _read(path: Path) -> Made:
    found = torch.load(path, weights_only=True)
    return Made(found["frames"], found["seconds"], found["gigabytes"])


def _absolute(settings: Settings) -> Settings:
    """The same with absolute paths, since upstream's script runs in its own folder."""
    paths = {name: value.absolute() for name, value in vars(settings).items() if isinstance(value, Path)}
    several = {
        name: tuple(single.absolute() for single in value)
        for name, value in vars(settings).items()
        if isinstance(value, tuple) and all(isinstance(single, Path) for single in value)
    }
    same = {name: getattr(settings, name) for name in ("audio_save_dir", "input_json", "save_file")}
    return settings.replace(**{**paths, **several, **same})


@contextlib.contextmanager
def _measured() -> Iterator[dict[str, float]]:
    on_card = torch.cuda.is_available()
    measured: dict[str, float] = {}
    begun = time.perf_counter()
    yield measured
    if on_card:
        torch.cuda.synchronize()
    peak = torch.cuda.max_memory_reserved() if on_card else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    measured |= {"seconds": time.perf_counter() - begun, "gigabytes": peak / GIB}


def run_upstream(upstream: Path, work: Path) -> None:
    """Upstream's script as it is, but that its video is kept as numbers, and its first noise beside it."""
    settings = parse(json.loads((work / "flags.json").read_text(encoding="utf-8")))
    run = upstream_run(Exported(settings))
    (work / run.inputs).write_text(json.dumps(run.entries), encoding="utf-8")
    kept: dict[str, torch.Tensor] = {}
    draw = torch.randn

    def drawn(*size: int, **options: object) -> torch.Tensor:
        noise = draw(*size, **options)
        if len(size) == 4:
            kept.setdefault("noise", noise.cpu())
        return noise

    def keep(video: torch.Tensor, *_: object, **__: object) -> None:
        kept["frames"] = to_uint8(video.cpu().float())

    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(work))
        if torch.cuda.is_available():
            sys.path.insert(0, str(upstream))
        else:
            from ..tests.golden.upstream import import_upstream

            stack.enter_context(import_upstream(upstream))
        script = importlib.import_module("generate_infinitetalk")
        if (work / SMALL).is_dir():
            for patch in _small_upstream(work / SMALL):
                stack.enter_context(patch)
        stack.enter_context(mock.patch.object(script, "save_video_ffmpeg", keep))
        stack.enter_context(mock.patch.object(sys, "argv", ["generate_infinitetalk.py", *run.argv]))
        stack.enter_context(mock.patch.object(torch, "randn", drawn))
        with _measured() as measured:
            script.generate(script._parse_args())
    torch.save({**kept, **measured}, work / THEIRS)


def run_here(work: Path) -> None:
    """The same window by this engine, from the noise that upstream drew."""
    settings = parse(json.loads((work / "flags.json").read_text(encoding="utf-8")))
    noise = torch.load(work / THEIRS, weights_only=True)["noise"]
    with contextlib.ExitStack() as stack:
        if (work / SMALL).is_dir():
            stack.enter_context(_small_bucket())
        with _measured() as measured:
            windows = Generator(settings).windows(load_job(settings), noise=lambda *_: noise)
            frames = torch.cat([window.frames for window in windows])
    torch.save({"frames": frames, **measured}, work / OURS)


# ---- small files in place of the weights


def small_files(folder: Path) -> list[str]:
    """Write small random models in upstream's layout, a picture and a sound; the flags that name them."""
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    from ..tests.golden import speech, streaming
    from ..tests.golden.transformer import AUDIO_CHANNELS, AUDIO_LAYERS
    from ..tests.support.places import DATA

    shapes = json.loads((DATA / "streaming.json").read_text(encoding="utf-8"))["shapes"]
    folder.mkdir()
    streaming.write_checkpoint(folder, streaming.CONFIG, shapes)
    torch.manual_seed(0)
    small = {"hidden_size": AUDIO_CHANNELS, "num_hidden_layers": AUDIO_LAYERS, "intermediate_size": 16}
    config = Wav2Vec2Config.from_dict({**speech.BASE, **small})
    Wav2Vec2Model(config).save_pretrained(folder / "wav2vec2")
    Wav2Vec2FeatureExtractor().save_pretrained(folder / "wav2vec2")
    samples = (speech.speech_like(1.0, 16_000) * 2**14).astype("int16")[:, None]
    speech.save_wav(folder / "speech.wav", samples, 16_000)
    given = {
        "ckpt_dir": folder,
        "infinitetalk_dir": folder / "InfiniteTalk" / "infinitetalk.safetensors",
        "wav2vec_dir": folder / "wav2vec2",
        "image": streaming.write_reference(folder, video=False),
        "audio": folder / "speech.wav",
        "prompt": streaming.PROMPT,
        **{"frame_num": 17, "motion_frame": 5, "sample_steps": 2, "sample_text_guide_scale": 1, "device": "cpu"},
        **{"sample_audio_guide_scale": 2, "dtype": "fp32", "vae_dtype": "fp32", "save_file": "compared"},
    }
    return [f"--{name}={value}" for name, value in given.items()]


def _small_upstream(folder: Path) -> list[contextlib.AbstractContextManager]:
    """Upstream's pipeline with small models, whose constructor insists on the real sizes, and one small bucket.

    Its speech encoder was written for transformers 4, which let it ask for attention maps.
    """
    from transformers import Wav2Vec2FeatureExtractor

    from ..tests.golden import streaming
    from ..tests.golden.speech import _with_hidden_states
    from ..tests.support.places import DATA

    names = "generate_infinitetalk", "wan", "wan.utils.multitalk_utils", "src.audio_analysis.wav2vec2"
    script, wan, sizes, speech = map(importlib.import_module, names)

    def encoder(*_: object) -> tuple:
        model = speech.Wav2Vec2Model.from_pretrained(folder / "wav2vec2", attn_implementation="eager").eval()
        return Wav2Vec2FeatureExtractor(), _with_hidden_states(model)

    shapes = json.loads((DATA / "streaming.json").read_text(encoding="utf-8"))["shapes"]
    pipeline = streaming._pipeline(folder, shapes)
    vars(pipeline)["sample_neg_prompt"] = NEGATIVE_PROMPT
    bucket = {"0.67": ([streaming.HEIGHT, streaming.WIDTH], 1)}
    return [
        mock.patch.object(script, "custom_init", encoder),
        mock.patch.object(wan, "InfiniteTalkPipeline", lambda **_: pipeline),
        mock.patch.dict(sizes.ASPECT_RATIO_627, bucket, clear=True),
    ]


def _small_bucket() -> contextlib.AbstractContextManager:
    from ..pipeline.facts.buckets import BUCKETS
    from ..tests.golden import streaming

    return mock.patch.dict(BUCKETS, {"infinitetalk-480": {0.67: (streaming.HEIGHT, streaming.WIDTH)}})


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case ["--upstream", upstream, work]:
                run_upstream(Path(upstream), Path(work))
            case ["--here", _, work]:
                run_here(Path(work))
            case words:
                sys.exit(main(words))
    except InputError as error:
        sys.exit(f"error: {error}")
