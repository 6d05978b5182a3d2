"""Whole videos of two speakers in three windows against upstream's own pipeline; its masks from boxes and halves."""

import pytest
import torch
from infinitetalk.pipeline.facts.buckets import BUCKETS
from infinitetalk.pipeline.job.speakers import Half, box_of
from infinitetalk.pipeline.media.colour import match_colour
from infinitetalk.pipeline.media.reference import open_reference
from infinitetalk.pipeline.media.regions import fitted, mask_of, token_masks
from infinitetalk.pipeline.models.speech_features import features_from_tensor
from infinitetalk.pipeline.planning.windows import window_plan
from infinitetalk.pipeline.run import windows as finishing
from infinitetalk.pipeline.run.streaming import Inputs, Streamer, Voices
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.validation import resolve
from infinitetalk.tests.golden import streaming as golden
from infinitetalk.tests.golden.recipe import random_tensor, read_golden
from infinitetalk.tests.run.test_parity_streaming import folder, models, prompts  # noqa: F401  fixtures
from infinitetalk.tests.support.places import DATA

CASES = ("cfg2", "cfg3", "apg", "teacache")
MASKS, NOTES = read_golden(DATA / "speakers.safetensors")


def regions_of(bbox):
    if bbox is None:
        return [Half("left"), Half("right")]
    return [box_of(numbers, "bbox", rows_first=True) for numbers in bbox.values()]


@pytest.mark.parametrize("number", range(len(NOTES["pictures"])))
def test_masks_equal_upstream(number):
    source, size, bbox = NOTES["pictures"][number]
    expected, regions = MASKS[f"masks.{number}"], regions_of(bbox)
    of_latents = torch.stack([fitted(mask_of(region, source, "a speaker"), size) for region in regions])[:, ::8, ::8]
    assert torch.equal(of_latents, expected[:2])
    assert torch.equal(token_masks(regions, source, size), expected[:, ::2, ::2])


@pytest.mark.whole
@pytest.mark.parametrize("name", CASES)
def test_three_windows_of_two_speakers_equal_upstream(name, models, prompts, tmp_path, monkeypatch):  # noqa: F811
    expected, notes = read_golden(DATA / f"speakers_{name}.safetensors")
    case = notes["case"]
    monkeypatch.setitem(BUCKETS, "infinitetalk-480", {0.67: (golden.HEIGHT, golden.WIDTH)})
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
            use_teacache="teacache" in case,
            teacache_thresh=case.get("teacache", 0.2),
            color_correction_strength=case["color_correction_strength"],
        )
    )
    reference = open_reference(golden.write_reference(tmp_path, case["video"]))
    size = golden.HEIGHT, golden.WIDTH
    masks = token_masks(regions_of(notes["bbox"]), (reference.height, reference.width), size).flatten(1)
    spoken = [expected["speech"], expected["speech.other speech"]]
    features = tuple(features_from_tensor(one, None, case["num_frames"]) for one in spoken)
    latents, pieces = [], []
    decode = models.vae.decode_frames
    monkeypatch.setattr(models.vae, "decode_frames", lambda z, *how: latents.append(z) or decode(z, *how))
    monkeypatch.setattr(finishing, "match_colour", lambda *a: pieces.append(match_colour(*a)) or pieces[-1])
    spans = window_plan(case["num_frames"], case["frame_num"], case["motion_frame"])
    streamer = Streamer(
        models,
        Inputs(reference, features[0], *prompts, Voices(features, masks)),
        settings,
        spans,
        noise=lambda window, shape: random_tensor(f"noise.{window}", shape),
    )
    motion, video = None, []
    for span in spans:
        pieces.clear()
        _, motion = streamer.window(span, motion)
        scale = expected[f"latents.{span.index}"].abs().max()
        assert (latents[-1] - expected[f"latents.{span.index}"]).abs().max() < 1e-3 * scale
        video.append(torch.cat(pieces, dim=1)[:, span.keep_from : span.keep_to])
    video = torch.cat(video, dim=1)[:, :, ::2, ::2]
    assert video.shape[1] == case["num_frames"] and len(spans) == 3
    assert (video - expected["video"] / golden.VIDEO_SCALE).abs().max() < 1e-3
