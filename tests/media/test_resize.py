"""Resizing as ComfyUI's core and KJNodes do it, and CLIP's view as core has it."""

import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.facts.resizing import FITS, METHODS, POSITIONS, ResizeStep, resize_steps
from infinitetalk.pipeline.media.resize import before_fit, resized
from infinitetalk.pipeline.models.image_encoder import _as_comfyui
from infinitetalk.tests.golden.recipe import read_golden
from infinitetalk.tests.golden.resize import CLIP_SIDE, CROPPED, PADDED, PICTURES, SCALED, SIZE, picture, thinned
from infinitetalk.tests.support.places import DATA

GOLDEN, _ = read_golden(DATA / "resize.safetensors")


@pytest.mark.parametrize("size", PICTURES)
@pytest.mark.parametrize("text", [*CROPPED, *SCALED])
def test_a_step_is_the_nodes(text, size):
    found = resized(picture(size), resize_steps((text,)), SIZE)
    assert found.shape == (3, *SIZE)
    torch.testing.assert_close(thinned(found), GOLDEN[f"{text} {size}"], rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", PICTURES)
@pytest.mark.parametrize("text", PADDED)
def test_bars_are_the_nodes(text, size):
    found = before_fit(picture(size), resize_steps((text, "lanczos,stretch")), SIZE)
    expected = GOLDEN[f"{text} {size}"]
    assert thinned(found).shape == expected.shape
    torch.testing.assert_close(thinned(found), expected, rtol=0, atol=2e-6)


def test_steps_follow_each_other_and_the_last_size_is_the_videos():
    image = picture(PICTURES[0])
    (first,) = resize_steps(("bilinear,crop,80x48",))
    between = resized(image, (first,), (48, 80))
    found = resized(image, resize_steps(("bilinear,crop,80x48", "lanczos,stretch")), SIZE)
    assert between.shape == (3, 48, 80) and found.shape == (3, *SIZE)
    torch.testing.assert_close(found, resized(image, (first,), SIZE), rtol=0, atol=0)  # the video's node stretches


@pytest.mark.parametrize("size", PICTURES)
def test_clip_sees_the_middle_as_in_comfyui(size):
    pixels = (resized(picture(size), (ResizeStep("bilinear", "stretch"),), size) + 1) / 2
    found = _as_comfyui(pixels[None], CLIP_SIDE, centre=True)[0]
    difference = (found[:, ::3, ::3] - GOLDEN[f"clip {size}"]).abs()
    assert difference.max() < 1.01 / 255 and difference.mean() < 1e-5  # a level at most, where rounding ties


@pytest.mark.parametrize("step", [ResizeStep(m, f, p) for m in METHODS for f in FITS for p in POSITIONS])
def test_a_step_is_read_as_it_is_written(step):
    assert resize_steps((str(step), str(ResizeStep(step.method, step.fit, step.position, (480, 832))))) == (
        step,
        ResizeStep(step.method, step.fit, step.position, (480, 832)),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lanczos",
        "lanczos,letterbox",
        "lanczos,crop,/2",
        "lanczos,pad,#12",
        "sinc,crop",
        "lanczos,crop,middle",
        "area,crop,0x5",
        "area,crop,top,5x99999",
    ],
)
def test_what_is_no_step_is_refused(text):
    with pytest.raises(InputError, match="--resize: "):
        resize_steps((text,))
    with pytest.raises(InputError, match="at most 8"):
        resize_steps(("lanczos,crop",) * 9)
