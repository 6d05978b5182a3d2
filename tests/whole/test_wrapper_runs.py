"""Whole runs of ComfyUI-WanVideoWrapper beside our own with the settings that its graph exports to.

The golden files are made by that pack's own nodes (``tests/golden/wrapper_runs.py``): noise, the latents after every
step of three windows, the features of the speech and the finished frames, all in float32.
"""

import json
from pathlib import Path

import pytest
import torch
from infinitetalk.pipeline import Generator, Job
from infinitetalk.pipeline.models.speech_encoder import SpeechEncoder
from infinitetalk.pipeline.run import streaming, windows
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.tests.golden import wrapper_runs as golden
from infinitetalk.tests.golden.recipe import read_golden
from infinitetalk.tests.support import random_checkpoint
from infinitetalk.tests.support.kijai_graphs import API, changed, export
from infinitetalk.tests.support.places import DATA
from safetensors.torch import save_file

pytestmark = pytest.mark.whole

LEFT_OUT = ("lora_dir", "lora_scale", "quant", "blocks_to_swap", "offload_model", "dit_path", "text_encoder")
LEFT_OUT += ("clip_vision", "vae", "separate_voice")  # files and precision, which are those of the small models
NEAREST = {"guide": 100, "kijai_03": 60, "cfg": 60}  # dB


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wrapper")
    paths = golden.write_inputs(folder)
    speech = torch.load(paths.wav2vec_dir / "pytorch_model.bin", weights_only=True)
    save_file({name: tensor.clone() for name, tensor in speech.items()}, folder / "wav2vec.safetensors")
    return folder


def exported(name, folder):
    """The settings of the guide's graph with the widgets of a case, on the small models."""
    widgets = golden.CASES[name]
    api = json.loads(API.read_text(encoding="utf-8"))
    changed(api, "WanVideoTextEncode", positive_prompt=golden.PROMPT, negative_prompt=golden.NEGATIVE)
    sampling = {key: getattr(widgets, key) for key in ("steps", "cfg", "shift", "seed", "scheduler")}
    changed(api, "WanVideoSampler", **sampling, start_step=widgets.start_step, end_step=widgets.end_step)
    if isinstance(widgets.cfg, tuple):
        api["list"] = {"class_type": "StringToFloatList", "inputs": {"string": ", ".join(map(str, widgets.cfg))}}
        changed(api, "WanVideoSampler", cfg=["list", 0])
    shown = {key: getattr(widgets, key) for key in ("frame_window_size", "motion_frame", "colormatch")}
    changed(api, "WanVideoImageToVideoMultiTalk", **shown)
    changed(api, "WanVideoClipVisionEncode", strength_1=widgets.strength_1)
    changed(api, "MultiTalkWav2VecEmbeds", audio_scale=widgets.audio_scale, num_frames=widgets.num_frames)
    usual = {each: getattr(Settings(), each) for each in LEFT_OUT}
    return export(api).settings.replace(
        **usual,
        image=folder / "portrait.png",
        audio=folder / "sound.wav",
        silence=folder / golden.SILENCE,
        ckpt_dir=folder / random_checkpoint.BASE_DIR,
        infinitetalk_dir=folder / random_checkpoint.INFINITETALK_FILE,
        wav2vec_dir=folder / "wav2vec.safetensors",
        size=f"{golden.WIDTH}x{golden.HEIGHT}",
        device="cpu",
        dtype="fp32",
    )


class Watch:
    """What our run draws, walks through and shows."""

    def __init__(self, monkeypatch):
        self.noises, self.walks, self.frames, self.features = [], [], [], []
        make, denoise, to_uint8 = streaming.make_solver, streaming.denoise, windows.to_uint8
        encode = SpeechEncoder.encode

        def solver(*given):
            made = make(*given)
            step = made.step
            self.walks.append([])
            made.step = lambda index, moved, latents: (
                self.walks[-1].append(latents.clone()) or step(index, moved, latents)
            )
            return made

        def walked(model, blocks, noise, *given):
            self.noises.append(noise.clone())
            self.walks[-1].append(denoise(model, blocks, noise, *given))
            return self.walks[-1][-1]

        monkeypatch.setattr(streaming, "make_solver", solver)
        monkeypatch.setattr(streaming, "denoise", walked)
        monkeypatch.setattr(windows, "to_uint8", lambda x: self.frames.append(x.clone()) or to_uint8(x))
        monkeypatch.setattr(
            SpeechEncoder, "encode", lambda *given: self.features.append(encode(*given)) or self.features[-1]
        )

    def video(self, settings):
        """Frames [T, H, W, 3] in [0, 1]; not cut to the speech, as that pack leaves them."""
        first, *others = ((torch.cat(self.frames, dim=1) + 1) / 2).clamp(0, 1).split(settings.frame_num, dim=1)
        frames = torch.cat([first, *(window[:, settings.motion_frame :] for window in others)], dim=1)
        return golden.thinned_frames(frames.permute(1, 2, 3, 0))


def off(mine, theirs):
    return float((mine - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("name", NEAREST)
def test_the_exported_settings_make_the_packs_video(name, folder, monkeypatch):
    expected, notes = read_golden(Path(DATA) / f"wrapper_run_{name}.safetensors")
    settings, watch = exported(name, folder), Watch(monkeypatch)
    job = Job(settings.image, settings.audio, prompt=golden.PROMPT, negative_prompt=golden.NEGATIVE)
    assert len(list(Generator(settings).windows(job))) == len(watch.walks) == 3
    (features,) = watch.features
    heard = features.windows(0, features.num_frames)[:, 2]
    assert off(heard[:: golden.FEATURE_STEP], expected["features"]) < 1e-5
    for window, (noise, walk) in enumerate(zip(watch.noises, watch.walks, strict=True)):
        drawn = golden.thinned(noise)
        if notes["cpu"] == torch.backends.cpu.get_cpu_capability():  # others draw in another order of operations
            assert torch.equal(drawn, expected[f"noise.{window}"])
        assert torch.allclose(drawn, expected[f"noise.{window}"], atol=1e-5)
        for mine, theirs in zip(walk[1:], expected[f"latents.{window}"], strict=True):
            assert off(golden.thinned(mine), theirs) < 1e-4
    frames = expected["frames"].float() / golden.FRAME_SCALE
    mine = watch.video(settings)
    assert mine.shape == frames.shape
    assert -10 * torch.log10((mine - frames).square().mean()) > NEAREST[name] - 15
