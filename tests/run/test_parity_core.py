"""Whole videos of three windows against ComfyUI's own nodes: noise to the bit, each call of the model, all frames."""

import math

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.facts.buckets import BUCKETS
from infinitetalk.pipeline.media.reference import open_reference
from infinitetalk.pipeline.models.speech_features import features_from_tensor, late_frames
from infinitetalk.pipeline.planning.windows import window_plan
from infinitetalk.pipeline.run.streaming import Inputs, Streamer
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.validation import resolve
from infinitetalk.tests.golden import core_run as golden
from infinitetalk.tests.golden import streaming
from infinitetalk.tests.golden.recipe import read_golden
from infinitetalk.tests.support.places import DATA
from infinitetalk.tests.support.small_models import small_models

pytestmark = pytest.mark.whole


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return small_models(tmp_path_factory.mktemp("checkpoint"))


@pytest.mark.parametrize("name", golden.CASES)
def test_three_windows_equal_core(name, models, tmp_path, monkeypatch):
    expected, notes = read_golden(DATA / f"core_run_{name}.safetensors")
    case, given = notes["case"], golden.inputs()
    monkeypatch.setitem(BUCKETS, "infinitetalk-480", {0.67: (streaming.HEIGHT, streaming.WIDTH)})
    frames = golden.FRAMES + (golden.WINDOWS - 1) * (golden.FRAMES - golden.MOTION)
    settings = resolve(
        Settings(
            size="infinitetalk-480",
            frame_num=golden.FRAMES,
            motion_frame=golden.MOTION,
            sample_steps=case["steps"],
            sample_shift=case["shift"],
            sample_solver=f"comfy:{case['sampler']}",
            sample_schedule=case["schedule"],
            sample_text_guide_scale=case["cfg"],
            sample_audio_guide_scale=1.0,
            noise="comfy",
            window_seeds=case["seeds"],
            pack="comfy",
            clip_crop="off" if case["sampler"] == "heun" else None,
            resize=["bilinear,middle"],
            color_correction_strength=0.0,
            whole_windows=True,
        )
    )
    monkeypatch.setattr(models.image_encoder, "encode", lambda pixels, crop: given["clip"])
    speech = features_from_tensor(late_frames(given["states"]), None, repeats_first=True)
    reference = open_reference(streaming.write_reference(tmp_path, video=False))
    spans = window_plan(speech.num_frames, golden.FRAMES, golden.MOTION, whole=True)
    assert len(spans) == golden.WINDOWS and spans[-1].stop == frames > speech.num_frames

    seen, ends = [], []
    decode, predict = models.vae.decode_frames, models.transformer.forward
    monkeypatch.setattr(models.vae, "decode_frames", lambda z, *how: ends.append(z) or decode(z, *how))
    monkeypatch.setattr(
        models.transformer, "forward", lambda latents, *rest: seen.append(latents.clone()) or predict(latents, *rest)
    )
    streamer = Streamer(models, Inputs(reference, speech, given["prompt"], given["negative"]), settings, spans)
    motion, video = None, []
    for number, span in enumerate(spans):
        seen.clear()
        window, motion = streamer.window(span, motion)
        held = 1 if number == 0 else 2
        calls, latents = expected[f"seen.{number}"], expected[f"latents.{number}"]
        if case["sampler"] != "uni_pc":
            assert torch.equal(seen[0][:, held:], expected[f"noise.{number}"][:, held:])
        for mine, theirs in zip(seen, calls, strict=True):
            assert _far(mine[:, held:], theirs[:, held:]) < 1e-4
        assert _far(ends[-1], latents) < 1e-4  # the first latent frame too, which core leaves to its sampler
        video.append(window.frames)
    levels = torch.cat(video).permute(3, 0, 1, 2)[:, :, ::2, ::2].numpy()
    theirs = np.round((expected["video"].numpy() / streaming.VIDEO_SCALE + 1) * 127.5)
    assert levels.shape == theirs.shape
    error = np.square(levels - theirs).mean()
    assert 10 * math.log10(255**2 / max(error, 1e-9)) > 50


def _far(mine, theirs):
    return float((mine - theirs).abs().max() / theirs.abs().max())
