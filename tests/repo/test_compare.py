"""The comparison with upstream's script: its figures, and its refusal; the runs themselves need upstream's clone."""

import math

import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.scripts.compare import Made, main, psnr, table


def test_figures_are_of_the_common_frames():
    dark, lighter = torch.zeros(3, 4, 4, 3, dtype=torch.uint8), torch.full((2, 4, 4, 3), 1, dtype=torch.uint8)
    assert psnr(dark, dark[:2]) == math.inf
    assert psnr(dark, lighter) == pytest.approx(20 * math.log10(255))
    lines = table(Made(lighter, 12.34, 1.0), Made(dark, 6.0, 0.5)).splitlines()
    assert lines[1].split() == ["frames", "2", "3"] and lines[2].split() == ["seconds", "12.3", "6.0"]
    assert lines[-1] == "PSNR over the common frames: 48.1 dB"


@pytest.mark.parametrize("words", [[], ["nowhere"]])
def test_without_upstream_there_is_a_sentence(words):
    with pytest.raises(InputError, match="make compare UPSTREAM=DIR"):
        main(words)
