"""Whole videos of three windows against upstream's own pipeline, noise and speech features injected."""

import pytest
import torch
from infinitetalk.pipeline.checkpoints.lookup import find_text_files
from infinitetalk.pipeline.facts.buckets import BUCKETS
from infinitetalk.pipeline.media.colour import match_colour
from infinitetalk.pipeline.media.reference import open_reference
from infinitetalk.pipeline.models.speech_features import features_from_tensor
from infinitetalk.pipeline.models.text.encoder import load_text_encoder
from infinitetalk.pipeline.planning.windows import window_plan
from infinitetalk.pipeline.run import streaming, windows
from infinitetalk.pipeline.run.streaming import Inputs, Streamer
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.validation import resolve
from infinitetalk.tests.golden import streaming as golden
from infinitetalk.tests.golden.recipe import random_tensor, read_golden
from infinitetalk.tests.support.places import DATA
from infinitetalk.tests.support.small_models import CPU, DESCRIPTION, small_models

pytestmark = pytest.mark.whole

CASES = DESCRIPTION["cases"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoint")


@pytest.fixture(scope="module")
def models(folder):
    return small_models(folder)


@pytest.fixture(scope="module")
def prompts(folder, models):
    path = folder / "models_t5_umt5-xxl-enc-bf16.pth"
    encoder = load_text_encoder(find_text_files(path, None, folder), CPU, torch.float32)
    return encoder.encode([golden.PROMPT, golden.NEGATIVE_PROMPT])


@pytest.mark.parametrize("name", CASES)
def test_three_windows_equal_upstream(name, models, prompts, tmp_path, monkeypatch):
    case = CASES[name]
    monkeypatch.setitem(BUCKETS, "infinitetalk-480", {0.67: (golden.HEIGHT, golden.WIDTH)})
    expected, _ = read_golden(DATA / f"streaming_{name}.safetensors")
    settings = resolve(
        Settings(
            frame_num=case["frame_num"],
            motion_frame=case["motion_frame"],
            sample_steps=case["steps"],
            sample_shift=case["shift"],
            sample_text_guide_scale=case["text_scale"],
            sample_audio_guide_scale=case["audio_scale"],
            use_apg=case["apg_threshold"] is not None,
            apg_norm_threshold=case["apg_threshold"] or 55.0,
            color_correction_strength=case["color_correction_strength"],
        )
    )
    speech = features_from_tensor(expected["speech"], None, case["num_frames"])
    reference = open_reference(golden.write_reference(tmp_path, case["video"]))
    spans = window_plan(case["num_frames"], case["frame_num"], case["motion_frame"])
    assert len(spans) == 3

    # What goes into the decoder, and what comes out of colour correction before it is rounded to 8 bits.
    latents, pieces, cropped = [], [], []
    decode = models.vae.decode_frames
    monkeypatch.setattr(models.vae, "decode_frames", lambda z, *how: latents.append(z) or decode(z, *how))
    monkeypatch.setattr(windows, "match_colour", lambda *a: pieces.append(match_colour(*a)) or pieces[-1])
    crop = streaming.resize_and_crop
    monkeypatch.setattr(streaming, "resize_and_crop", lambda *a: cropped.append(a) or crop(*a))
    streamer = Streamer(
        models,
        Inputs(reference, speech, *prompts),
        settings,
        spans,
        noise=lambda window, shape: random_tensor(f"noise.{window}", shape),
    )
    motion, video = None, []
    for span in spans:
        pieces.clear()
        window, motion = streamer.window(span, motion)
        scale = expected[f"latents.{span.index}"].abs().max()
        assert (latents[-1] - expected[f"latents.{span.index}"]).abs().max() < 1e-3 * scale
        video.append(torch.cat(pieces, dim=1)[:, span.keep_from : span.keep_to])
        levels = (window.frames.permute(3, 0, 1, 2) / 127.5 - 1 - video[-1]).abs()
        assert levels.max() < 0.51 / 127.5

    assert len(cropped) == (3 if case["video"] else 1)  # the first frame's colours included
    video = torch.cat(video, dim=1)[:, :, ::2, ::2]
    assert video.shape[1] == case["num_frames"]
    assert (video - expected["video"] / golden.VIDEO_SCALE).abs().max() < 1e-3
