"""Whole runs of three windows by ComfyUI-WanVideoWrapper -> wrapper_run_{case}.safetensors.

    python -m infinitetalk.tests.golden.wrapper_runs PACK --comfyui DIR --kjnodes DIR [--case NAME] [--out DIR]

PACK is a checkout of starsFriday/ComfyUI-WanVideoWrapper-Enhanced-Infinitetalk at 9a4616c, DIR a ComfyUI and a checkout
of kijai/ComfyUI-KJNodes. The nodes of a graph are called as the graph links them, with its widgets but for the size,
the files and the precision, which is fp32, on the checkpoint that ``write_inputs`` writes and the sound and the picture
that lie there. Of a run are kept (``thinned``, ``thinned_frames``):
    noise.{k}     [c, T, h, w] the start noise of window k
    latents.{k}   [steps, c, T, h, w] after each step of window k, the motion frames held
    features      [n, layers, channels] of the speech
    frames        int16 [t, H, W, 3] of the finished video in [0, 1], times FRAME_SCALE
Notes: ``widgets`` of the case and ``cpu``, the instructions that the noise was drawn with.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import math
import tempfile
import types
import wave
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from ..support import random_checkpoint
from ..support.other_layouts import hugging_face_image_encoder
from ..support.random_checkpoint import TINY
from .recipe import random_tensor, reference_frames, write_golden
from .resize import _define
from .speech import _with_hidden_states, save_wav, speech_like
from .wrapper import SILENCE, import_wrapper, module

WIDTH, HEIGHT = 64, 80
SOUND_RATE, SOUND_FRAMES = 24_000, 165
FRAME_SCALE = 32767
PROMPT, NEGATIVE = "a woman talks to the camera", "a blurred picture"
CHANNEL_STEP, FRAME_STEP, PIXEL_STEP, FEATURE_STEP = 8, 9, 2, 18


@dataclass(frozen=True)
class Widgets:
    """What a graph sets, under that pack's names."""

    steps: int = 4
    cfg: float | tuple[float, ...] = 1.0
    shift: float = 11.0
    seed: int = 1
    scheduler: str = "flowmatch_distill"
    start_step: int = 0
    end_step: int = -1
    samples: bool = False  # latents of another video, with add_noise_to_samples
    frame_window_size: int = 81
    motion_frame: int = 25
    colormatch: str = "mkl"
    audio_scale: float = 1.0
    audio_cfg_scale: float = 1.0
    strength_1: float = 1.0
    num_frames: int = 1000


_SMALL = Widgets(
    steps=6, seed=2, scheduler="dpm++_sde", frame_window_size=33, motion_frame=9, colormatch="disabled", num_frames=73
)
CASES = {
    "guide": Widgets(num_frames=math.floor(SOUND_FRAMES / 25) * 25 + 25),  # as its SimpleMath+ has it
    "kijai_03": _SMALL,
    "v2v": replace(_SMALL, steps=4, start_step=2, samples=True, audio_scale=1.5),
    "cfg": replace(_SMALL, steps=4, scheduler="unipc", cfg=(2.0, 1.5, 1.0), strength_1=1.2, seed=3),
}


def write_inputs(folder: Path) -> random_checkpoint.Paths:
    """Write checkpoint, sound.wav, portrait.png, source.npy and the stored silence into a folder."""
    paths = random_checkpoint.write(folder, TINY)
    left = speech_like(SOUND_FRAMES / 25, SOUND_RATE, seed=3)
    sound = np.stack([left, 0.5 * speech_like(SOUND_FRAMES / 25, SOUND_RATE, seed=4)], axis=1)
    save_wav(folder / "sound.wav", (sound * 32767).astype(np.int16), SOUND_RATE)
    Image.fromarray(reference_frames(1, 150, 100)[0]).save(folder / "portrait.png")
    silence = random_tensor("silence", [90, TINY.audio_layers, TINY.audio_hidden])
    save_file({"audio_emb": silence.half()}, folder / SILENCE)
    return paths


def source_frames(count: int = 60) -> np.ndarray:
    """The video that case "v2v" starts from, uint8 [count, HEIGHT, WIDTH, 3]."""
    return np.ascontiguousarray(reference_frames(count, HEIGHT, WIDTH)[:, :, ::-1])


def thinned(latents: torch.Tensor) -> torch.Tensor:
    return latents[..., ::CHANNEL_STEP, :, :, :]


def thinned_frames(frames: torch.Tensor) -> torch.Tensor:
    """Of [T, H, W, 3]."""
    return frames[::FRAME_STEP, ::PIXEL_STEP, ::PIXEL_STEP]


def make(pack: Path, comfyui: Path, kjnodes: Path, out: Path, cases: list[str]) -> None:
    """Write the files."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        paths = write_inputs(folder)
        rows = _write_for_wrapper(folder, paths)
        with import_wrapper(pack, comfyui, TINY, rows, folder), torch.no_grad():
            for name in cases:
                widgets = CASES[name]
                tensors = _run(folder, _resizer(kjnodes), widgets)
                notes = {"widgets": widgets.__dict__, "cpu": torch.backends.cpu.get_cpu_capability()}
                write_golden(out / f"wrapper_run_{name}.safetensors", tensors, **notes)


def _write_for_wrapper(folder: Path, paths: random_checkpoint.Paths) -> int:
    """The checkpoint again, as that pack reads it, in ComfyUI's folders; the rows of the text encoder's table."""

    def loaded(path: Path) -> dict[str, torch.Tensor]:
        return {name: tensor.float() for name, tensor in torch.load(path, weights_only=True).items()}

    base, t5 = paths.ckpt_dir, loaded(paths.ckpt_dir / random_checkpoint.T5_FILE)
    speech = loaded(paths.wav2vec_dir / "pytorch_model.bin")
    for kind, name, tensors in (
        ("diffusion_models", "wan_i2v_480p", random_checkpoint.transformer_weights(TINY)),
        ("diffusion_models", "infinitetalk", random_checkpoint.infinitetalk_weights(TINY)),
        ("vae", "vae", loaded(base / random_checkpoint.VAE_FILE)),
        ("text_encoders", "t5", t5),
        ("wav2vec2", "wav2vec", speech),
        ("clip_vision", "clip", hugging_face_image_encoder(loaded(base / random_checkpoint.CLIP_FILE), torch.float32)),
    ):
        (folder / kind).mkdir(exist_ok=True)
        tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        save_file(tensors, folder / kind / f"{name}.safetensors")
    (folder / "tokenizer").symlink_to(base / random_checkpoint.TOKENIZER_DIR)
    return len(t5["token_embedding.weight"])


def _resizer(kjnodes: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """ImageResizeKJv2 as the guide's graph has it: lanczos, crop, divisible by 16."""
    import comfy.utils
    import torch.nn.functional as F

    names = {
        "torch": torch,
        "F": F,
        "math": math,
        "np": np,
        "Image": Image,
        "common_upscale": comfy.utils.common_upscale,
    }
    names |= {"PromptServer": None, "MAX_RESOLUTION": 16384}
    names |= {"model_management": types.SimpleNamespace(throw_exception_if_processing_interrupted=lambda: None)}
    _define(kjnodes / "nodes" / "image_nodes.py", ("ImageResizeKJv2",), names)
    node = names["ImageResizeKJv2"]()
    return lambda image: node.resize(image, WIDTH, HEIGHT, "crop", "lanczos", 16, "0, 0, 0", "center", None, "cpu")[0]


def _run(folder: Path, resize: Callable[[torch.Tensor], torch.Tensor], widgets: Widgets) -> dict[str, torch.Tensor]:
    """The nodes of a graph, one after the other."""
    nodes, loading, multitalk = module("nodes"), module("nodes_model_loading"), module("multitalk.nodes")
    picture = np.array(Image.open(folder / "portrait.png").convert("RGB")).astype(np.float32) / 255
    image = resize(torch.from_numpy(picture)[None])
    (vae,) = loading.WanVideoVAELoader().loadmodel("vae.safetensors", "fp32")
    (t5,) = loading.LoadWanVideoT5TextEncoder().loadmodel("t5.safetensors", "fp32")
    (text,) = nodes.WanVideoTextEncode().process(PROMPT, NEGATIVE, t5=t5)
    (seen,) = nodes.WanVideoClipVisionEncode().process(
        _clip(folder), image, widgets.strength_1, 1.0, True, "center", "average"
    )
    shown, _ = multitalk.WanVideoImageToVideoMultiTalk().process(
        vae,
        image.shape[2],
        image.shape[1],
        widgets.frame_window_size,
        widgets.motion_frame,
        False,
        widgets.colormatch,
        start_image=image,
        clip_embeds=seen,
        mode="infinitetalk",
    )
    (wav2vec,) = multitalk.Wav2VecModelLoader().loadmodel("wav2vec.safetensors", "fp32", "main_device")
    wav2vec["model"] = _WithHiddenStates(wav2vec["model"])
    scales = widgets.audio_scale, widgets.audio_cfg_scale
    heard, _, _ = multitalk.MultiTalkWav2VecEmbeds().process(
        wav2vec, True, 25.0, widgets.num_frames, _sound(folder), *scales, "para"
    )
    (speech_weights,) = multitalk.MultiTalkModelLoader().loadmodel("infinitetalk.safetensors")
    (model,) = loading.WanVideoModelLoader().loadmodel(
        "wan_i2v_480p.safetensors", "fp32", "main_device", "disabled", multitalk_model=speech_weights
    )
    record = _Record()
    samples = _samples(vae) if widgets.samples else None
    with record.listening(vae):
        latents, *_ = (
            module("nodes_sampler")
            .WanVideoSampler()
            .process(
                model,
                shown,
                widgets.shift,
                widgets.steps,
                list(widgets.cfg) if isinstance(widgets.cfg, tuple) else widgets.cfg,
                widgets.seed,
                widgets.scheduler,
                0,
                text_embeds=text,
                multitalk_embeds=heard,
                samples=samples,
                start_step=widgets.start_step,
                end_step=widgets.end_step,
                add_noise_to_samples=True,
                rope_function="comfy",
            )
        )
    frames = nodes.WanVideoDecode().decode(vae, latents, False, 272, 272, 144, 128)[0]
    features = heard["audio_features"][0].float()
    return record.tensors() | {
        "features": features[::FEATURE_STEP],
        "frames": (thinned_frames(frames) * FRAME_SCALE).round().to(torch.int16),
    }


def _clip(folder: Path) -> object:
    import comfy.clip_vision
    from safetensors.torch import load_file

    config = json.loads((Path(comfy.clip_vision.__file__).parent / "clip_vision_config_h.json").read_text())
    config |= {"hidden_size": TINY.clip_dim, "intermediate_size": 4 * TINY.clip_dim}
    config |= {"num_attention_heads": max(1, TINY.clip_dim // 80), "num_hidden_layers": TINY.clip_layers}
    weights = load_file(folder / "clip_vision" / "clip.safetensors")
    config["projection_dim"] = len(weights["visual_projection.weight"])
    (folder / "clip.json").write_text(json.dumps(config))
    clip = comfy.clip_vision.ClipVisionModel(folder / "clip.json")
    missing, unexpected = clip.load_sd(weights)
    if missing or unexpected:
        raise AssertionError(f"the image encoder lacks {missing} and does not know {unexpected}")
    return clip


class _WithHiddenStates:
    """The speech encoder, with what transformers 5 does not give."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._call = _with_hidden_states(model)

    def to(self, device: torch.device) -> None:
        self._model.to(device)

    def __call__(self, values: torch.Tensor, **named: object) -> object:
        return self._call(values, **named)


def _sound(folder: Path) -> dict[str, object]:
    """As LoadAudio reads 16 bits."""
    with wave.open(str(folder / "sound.wav")) as file:
        samples = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, file.getnchannels())
        rate = file.getframerate()
    return {"waveform": torch.from_numpy(samples.astype(np.float32).T / 2**15)[None], "sample_rate": rate}


def _samples(vae: object) -> dict[str, torch.Tensor]:
    images = torch.from_numpy(source_frames()).float() / 255
    return module("nodes").WanVideoEncode().encode(vae, images, False, 272, 272, 144, 128)[0]


class _Record:
    """What a sampler draws and walks through."""

    def __init__(self) -> None:
        self._noises: list[torch.Tensor] = []
        self._walks: list[list[torch.Tensor]] = []

    def listening(self, vae: object) -> contextlib.ExitStack:
        """Hear the start noise of each window, the latents before each step, and what is decoded."""
        sampler = module("nodes_sampler")
        real_schedule, real_randn, real_decode = sampler.get_scheduler, torch.randn, vae.decode

        def randn(*given: object, **named: object) -> torch.Tensor:
            drawn = real_randn(*given, **named)
            if drawn.dim() == 4:
                self._noises.append(drawn.clone())  # the sampler changes it in place
            return drawn

        def schedule(*given: object, **named: object) -> tuple:
            made = real_schedule(*given, **named)
            scheduler, step = made[0], made[0].step
            if not named.get("log_timesteps"):
                self._walks.append([])

            def heard(output: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor, **more: object) -> object:
                self._walks[-1].append(sample[0].clone())
                return step(output, timestep, sample, **more)

            heard.__signature__ = inspect.signature(step)
            scheduler.step = heard
            return made

        def decode(latents: torch.Tensor, **named: object) -> torch.Tensor:
            self._walks[-1].append(latents[0].clone())
            return real_decode(latents, **named)

        stack = contextlib.ExitStack()
        stack.enter_context(mock.patch.object(sampler, "get_scheduler", schedule))
        stack.enter_context(mock.patch.object(torch, "randn", randn))
        stack.enter_context(mock.patch.object(vae, "decode", decode))
        return stack

    def tensors(self) -> dict[str, torch.Tensor]:
        found = {
            f"noise.{k}": thinned(noise) for k, noise in enumerate(self._noises[1:])
        }  # the first is used by nothing
        walks = {f"latents.{k}": thinned(torch.stack(walk[1:])) for k, walk in enumerate(self._walks)}
        return found | walks


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infinitetalk.tests.golden.wrapper_runs")
    parser.add_argument("pack", type=Path, help="a checkout of the pack")
    parser.add_argument("--comfyui", type=Path, required=True)
    parser.add_argument("--kjnodes", type=Path, required=True)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "data")
    given = parser.parse_args()
    torch.set_num_threads(1)
    make(given.pack, given.comfyui, given.kjnodes, given.out, given.case)


if __name__ == "__main__":
    main()
