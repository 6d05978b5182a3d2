"""The choice of the video's size, against upstream's."""

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.facts.buckets import BUCKETS, target_size
from infinitetalk.tests.golden.recipe import read_golden
from infinitetalk.tests.support.places import DATA

GOLDEN, _ = read_golden(DATA / "media.safetensors")


@pytest.mark.parametrize("size", BUCKETS)
def test_twenty_shapes_get_upstreams_bucket(size):
    sources = GOLDEN["sizes"].tolist()
    assert len({height / width for height, width in sources}) == 20
    assert [list(target_size(size, *source)) for source in sources] == GOLDEN[f"target.{size}"].tolist()


def test_a_tie_goes_to_the_first_bucket():
    assert target_size("infinitetalk-480", 9, 4) == (896, 448)  # 2.25 is as far from 2.00 as from 2.50


@pytest.mark.parametrize(
    ("size", "expected"),
    [("832x480", (480, 832)), ("480X832", (832, 480)), ("855x479", (464, 848)), (" 64x64 ", (64, 64))],
)
def test_width_x_height_is_rounded_down_to_the_grid(size, expected):
    assert target_size(size, 100, 100) == expected


@pytest.mark.parametrize(
    "size",
    [
        "",
        "480",
        "infinitetalk-1080",
        "832*480",
        "-64x64",
        "63x640",
        "640x4097",
        "1e3x640",
        "832x",
        "\u0666\u0664\u0660x640",
    ],
)
def test_nonsense_is_refused_with_a_sentence(size):
    with pytest.raises(InputError, match="--size"):
        target_size(size, 100, 100)
