"""Whole videos of three windows by ComfyUI's own nodes -> core_run_*.safetensors.

python -m infinitetalk.tests.golden.core_run COMFYUI [OUT]

COMFYUI is a ComfyUI at Comfy-Org's 6db4fa2f or later, whose packages are installed. Its WanInfiniteTalkToVideo,
samplers and VAE run in float32 on a CPU with the small random models of streaming.json, each window fed with all
frames before it. What the text and image encoders and wav2vec2 would give is ``inputs()``; the picture is the portrait
of ``streaming.write_reference``.

core_run_{case}.safetensors holds
    noise.{k}       [16, t, 4, 6] the start noise of window k
    seen.{k}        [calls, 16, t, 4, 6] the latents before each call of the model, not overwritten
    latents.{k}     [16, t, 4, 6] what the window ends with, as the VAE decodes it
    video           int16: every second row and column of all frames, [3, T, 16, 24], in [-1, 1] times ``VIDEO_SCALE``
core_inputs.safetensors holds
    features        [frames, 2, 64] that core's wav2vec2 makes of ``sound()``, resampled and brought to 25 a second
                    there; ``shapes`` are those of its weights
    clip.{crop}     [3, 75, 75] what core's CLIP sees of the portrait before it is normalised: every third row and
                    column
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from PIL import Image

from . import streaming, transformer, vae
from .core_samplers import import_core
from .recipe import random_state, random_tensor, shapes_of, write_golden
from .speech import speech_like

FRAMES, MOTION, WINDOWS = 17, 5, 3
STATES = 81  # of wav2vec2, 50 a second: 40 video frames, one less than the three windows hear
CASES = {
    "euler": {"sampler": "euler", "schedule": "simple", "steps": 4, "shift": 8.0, "cfg": 1.0, "seeds": [3, 3, 3]},
    "uni_pc": {"sampler": "uni_pc", "schedule": "beta", "steps": 4, "shift": 5.0, "cfg": 3.0, "seeds": [3, 4, 9]},
    "blind": {"sampler": "heun", "schedule": "simple", "steps": 2, "shift": 8.0, "cfg": 2.0, "seeds": [5, 6, 7]},
    "sde": {"sampler": "dpmpp_2m_sde", "schedule": "normal", "steps": 3, "shift": 11.0, "cfg": 1.0, "seeds": [7, 7, 8]},
}


def inputs() -> dict[str, torch.Tensor]:
    """Prompts [tokens, dim], CLIP's features [257, dim], and wav2vec2's states [n, layers, channels]."""
    return {
        "prompt": random_tensor("prompt", [7, streaming.CONFIG["text_dim"]]),
        "negative": random_tensor("negative", [4, streaming.CONFIG["text_dim"]]),
        "clip": random_tensor("clip", [257, streaming.CLIP_DIM]),
        "states": random_tensor("states", [STATES, transformer.AUDIO_LAYERS, transformer.AUDIO_CHANNELS]),
    }


def sound() -> tuple[np.ndarray, int]:
    """Two channels [2, n] of speech, quieter than they would be made, and their rate."""
    return np.stack([speech_like(3.1, 44_100, seed) * 0.1 for seed in (0, 1)]).astype(np.float32), 44_100


def make(core: Path, out: Path) -> None:
    """Write the files."""
    import_core(core)
    _make_inputs(out)
    shapes = json.loads((Path(__file__).parents[1] / "data" / "streaming.json").read_text(encoding="utf-8"))["shapes"]
    model, patch, decoder = _model(shapes["transformer"]), _patch(shapes["transformer"]), _vae(shapes["vae"])
    with torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        picture = Image.open(streaming.write_reference(Path(folder), video=False)).convert("RGB")
        start = torch.from_numpy(np.array(picture).astype(np.float32) / 255)[None]
        for name, case in CASES.items():
            write_golden(out / f"core_run_{name}.safetensors", _run(model, patch, decoder, start, case), case=case)


def _make_inputs(out: Path) -> None:
    import torchaudio

    heard = importlib.import_module("comfy.audio_encoders.wav2vec2")
    ops, nodes = importlib.import_module("comfy.ops"), importlib.import_module("comfy_extras.nodes_wan")
    model = heard.Wav2Vec2Model(
        embed_dim=64, num_heads=1, num_layers=2, conv_norm=False, conv_bias=False, do_normalize=False,
        do_stable_layer_norm=False, operations=ops.manual_cast,
    )  # fmt: skip
    shapes = shapes_of(model)
    model.load_state_dict(random_state(shapes))
    samples, rate = sound()
    with torch.no_grad():
        _, layers = model.eval()(torchaudio.functional.resample(torch.from_numpy(samples)[None], rate, 16_000))
    states = torch.stack(layers, dim=0).squeeze(1)[1:]
    features = nodes.linear_interpolation(states, input_fps=50, output_fps=25).movedim(0, 1).contiguous()
    clip = importlib.import_module("comfy.clip_model")
    pixels = torch.from_numpy(streaming.reference_frames(1, 70, 100)).float() / 255
    seen = {
        f"clip.{crop}": clip.clip_preprocess(pixels, mean=[0, 0, 0], std=[1, 1, 1], crop=crop == "center")[
            0, :, ::3, ::3
        ]
        for crop in ("center", "none")
    }
    write_golden(out / "core_inputs.safetensors", {"features": features} | seen, shapes=shapes)


def _run(model, patch, decoder, start: torch.Tensor, case: dict) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    nodes = importlib.import_module("comfy_extras.nodes_wan")
    sampling = importlib.import_module("comfy_extras.nodes_model_advanced")
    sample = importlib.import_module("comfy.sample")
    given = inputs()
    conditioning = {
        which: [[torch.nn.functional.pad(given[which], (0, 0, 0, 512 - len(given[which])))[None], {}]]
        for which in ("prompt", "negative")
    }
    clip = None if case["sampler"] == "heun" else mock.Mock(penultimate_hidden_states=given["clip"][None])
    states = given["states"].permute(1, 0, 2)[:, None]
    audio = {"encoded_audio_all_layers": (states[0], *states)}
    (shifted,) = sampling.ModelSamplingSD3().patch(model, case["shift"])
    found, frames = {}, None
    for window in range(WINDOWS):
        patched, positive, negative, latent, trim = nodes.WanInfiniteTalkToVideo.execute(
            {"mode": "single_speaker"}, shifted, patch, conditioning["prompt"], conditioning["negative"], decoder,
            streaming.WIDTH, streaming.HEIGHT, FRAMES, audio, MOTION, start, frames, case.get("audio_scale", 1.0), clip,
        ).args  # fmt: skip
        noise = sample.prepare_noise(latent["samples"], case["seeds"][window])
        seen: list[torch.Tensor] = []

        def watched(function, options, seen=seen):  # type: ignore[no-untyped-def]
            if options["cond_or_uncond"] == [0]:
                seen.append(options["input"].clone())
            return function(options["input"], options["timestep"], **options["c"])

        patched.set_model_unet_function_wrapper(watched)
        how = case["steps"], case["cfg"], case["sampler"], case["schedule"]
        latents = sample.sample(
            patched, noise, *how, positive, negative, latent["samples"], disable_pbar=True, seed=case["seeds"][window]
        )
        images = decoder.decode(latents)
        images = images.reshape(-1, *images.shape[-3:])[trim:]
        frames = images if frames is None else torch.cat([frames, images])
        normal = model.model.process_latent_in(latents)[0]
        found |= {f"noise.{window}": noise[0], f"seen.{window}": torch.cat(seen), f"latents.{window}": normal}
    video = ((frames * 2 - 1).permute(3, 0, 1, 2) * streaming.VIDEO_SCALE).round().to(torch.int16)
    return found | {"video": video[:, :, ::2, ::2].contiguous()}


def _model(shapes: dict[str, list[int]]):  # type: ignore[no-untyped-def]
    """Core's model of the base's weights."""
    models, patcher = importlib.import_module("comfy.supported_models"), importlib.import_module("comfy.model_patcher")
    wan = importlib.import_module("comfy.ldm.wan.model")
    config = {name: value for name, value in streaming.CONFIG.items() if name in _CORE_CONFIG}
    described = models.WAN21_I2V({"image_model": "wan2.1", **config})
    described.set_inference_dtype(torch.float32, None)
    embed = wan.MLPProj
    with mock.patch.object(wan, "MLPProj", lambda _, *args, **kwargs: embed(streaming.CLIP_DIM, *args, **kwargs)):
        model = described.get_model({}, device=torch.device("cpu"))
    weights = random_state(shapes)
    base = {name: tensor for name, tensor in weights.items() if not streaming._is_audio(name)}
    missing, unexpected = model.diffusion_model.load_state_dict(base, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    # core's node cannot take two prompts at once, which it is given where memory seems enough
    model.memory_required = lambda shape, cond_shapes=None: 0 if shape[0] == 1 else 2**60
    return patcher.ModelPatcher(model.eval(), torch.device("cpu"), torch.device("cpu"))


_CORE_CONFIG = ("model_type", "text_len", "in_dim", "dim", "ffn_dim", "freq_dim", "text_dim", "out_dim", "num_heads")
_CORE_CONFIG += ("num_layers", "eps")


def _patch(shapes: dict[str, list[int]]):  # type: ignore[no-untyped-def]
    """Core's model patch of the audio weights; it fixes heads, layers and the size of features."""
    patches = importlib.import_module("comfy_extras.nodes_model_patch")
    talk = importlib.import_module("comfy.ldm.wan.model_multitalk")
    patcher, ops = importlib.import_module("comfy.model_patcher"), importlib.import_module("comfy.ops")
    attention, projection = talk.SingleStreamMultiAttention, talk.MultiTalkAudioProjModel

    def small(*args, num_heads, **kwargs):  # type: ignore[no-untyped-def]
        return attention(*args, num_heads=streaming.CONFIG["num_heads"], **kwargs)

    def projected(**kwargs):  # type: ignore[no-untyped-def]
        return projection(blocks=transformer.AUDIO_LAYERS, channels=transformer.AUDIO_CHANNELS, **kwargs)

    config = streaming.CONFIG
    with (
        mock.patch.object(talk, "SingleStreamMultiAttention", small),
        mock.patch.object(patches, "MultiTalkAudioProjModel", projected),
    ):
        model = patches.MultiTalkModelPatch(
            intermediate_dim=config["intermediate_dim"], in_dim=config["dim"], out_dim=config["output_dim"],
            context_tokens=config["context_tokens"], num_layers=config["num_layers"], operations=ops.manual_cast,
        )  # fmt: skip
    weights = random_state(shapes)
    model.load_state_dict({name: tensor for name, tensor in weights.items() if streaming._is_audio(name)})
    return patcher.ModelPatcher(model.eval(), torch.device("cpu"), torch.device("cpu"))


def _vae(shapes: dict[str, list[int]]):  # type: ignore[no-untyped-def]
    return importlib.import_module("comfy.sd").VAE(sd=vae.golden_weights(shapes), dtype=torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m infinitetalk.tests.golden.core_run")
    parser.add_argument("core", type=Path, help="the folder of a ComfyUI")
    parser.add_argument("out", type=Path, nargs="?", default=Path(__file__).parents[1] / "data")
    given = parser.parse_args()
    torch.set_num_threads(1)
    make(given.core, given.out)


if __name__ == "__main__":
    main()
