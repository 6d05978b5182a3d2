"""Colours by covariance and by histogram, against the package color-matcher as ComfyUI-WanVideoWrapper calls it."""

import pytest
import torch
from infinitetalk.pipeline.facts.colours import BROKEN, COLOURS
from infinitetalk.pipeline.media.colour_transfer import colour_transfer
from infinitetalk.tests.golden.colour_transfer import METHODS, shown
from infinitetalk.tests.golden.media import reference
from infinitetalk.tests.golden.recipe import read_golden
from infinitetalk.tests.support.places import DATA

GOLDEN, _ = read_golden(DATA / "colour_transfer.safetensors")


@pytest.mark.parametrize("method", METHODS)
def test_matches_color_matcher(method):
    frames = torch.stack(shown(), dim=1)
    expected = GOLDEN[method]
    assert (expected - frames).abs().amax(dim=(0, 2, 3)).min() > 0.1  # each of the frames is really changed
    found = colour_transfer(method, reference())(frames)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 if method == "mkl" else 2e-3)
    if method != "mkl":  # ties are decided by the last bits
        assert (found - expected).abs().mean() < 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_a_frame_matched_to_itself_stays(method):
    frame = shown()[0]
    found = colour_transfer(method, frame)(frame[:, None])[:, 0]
    assert (found - frame).abs().mean() < 1e-4  # ties are decided by the last bits


@pytest.mark.parametrize("method", METHODS)
def test_a_frame_of_one_colour_becomes_one_colour(method):
    grey = torch.full((3, 1, 16, 16), 0.25)
    found = colour_transfer(method, reference())(grey)
    assert found.isfinite().all() and (found - found[..., :1, :1]).abs().max() < 1e-6


def test_a_frames_type_is_kept():
    assert colour_transfer("mkl", reference())(shown()[0][:, None].bfloat16()).dtype == torch.bfloat16


def test_every_method_of_the_table_is_computed_and_named_once():
    names = [name for row in COLOURS.values() for name in row.color_matcher]
    assert len(set(names)) == len(names) and not set(names) & set(BROKEN)
    for name in set(COLOURS) - {"lab"}:
        assert colour_transfer(name, reference())(shown()[0][:, None]).isfinite().all()
