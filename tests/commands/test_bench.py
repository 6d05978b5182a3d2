"""The user's own benchmark: it times the engine's own pieces, and its predictions follow from what it timed."""

import dataclasses

import pytest
import torch
from infinitetalk.pipeline.commands import timing
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.commands.timing import (
    FLOATS,
    Measured,
    Sizes,
    describe,
    measure,
    predict,
    transformer_size,
)
from infinitetalk.pipeline.errors import Unavailable
from infinitetalk.pipeline.facts.model_sizes import WAN_14B
from infinitetalk.pipeline.models.vae.model import wan_vae
from infinitetalk.pipeline.parallel.division import Rates
from infinitetalk.pipeline.settings.presets import preset_names
from infinitetalk.tests.support.random_checkpoint import TINY, vae_table

CPU = torch.device("cpu")
SMALL = dataclasses.replace(
    WAN_14B, dim=TINY.dim, ffn_dim=TINY.ffn, num_heads=2, num_layers=2, audio_dim=64, audio_tokens=8
)
SIZES = Sizes(SMALL, TINY.vae_dim, 64, 64, 13)
FULL = Sizes(WAN_14B, 96, 640, 640, 81)


def card(**changes):
    """What a card might give, with whole numbers."""
    times = {"attention": {"sdpa": 0.04, "sage": 0.01}, "block": {FLOATS: 0.1, "fp8": 0.05}, "decoding": 0.1}
    return Measured(CPU, "a card", FULL, 10e9, **{**times, **changes})


def test_every_piece_is_timed_or_says_why_not(monkeypatch, capsys):
    monkeypatch.setattr(timing, "usual_sizes", lambda device: SIZES)
    assert main(["bench"]) == 0
    out = capsys.readouterr()
    assert "64x64, 13 frames, 64 tokens" in out.out and "timing the VAE" in out.err
    for name in preset_names():
        assert name in out.out
    if not torch.cuda.is_available():
        assert "attention, flash" in out.out and "needs a CUDA card" in out.out


def test_pieces_are_the_engines_own():
    measured = measure(CPU, SIZES)
    assert set(measured.block) == {FLOATS, "fp8", "int8"} and measured.copying is None
    assert all(isinstance(time, float) and time > 0 for time in [*measured.block.values(), measured.decoding])


def test_predictions_follow_from_what_was_timed():
    whole = predict(card(), "04_high_quality")  # 40 steps of three passes, 16 bits, nothing copied
    assert whole.forward == pytest.approx(40 * 0.1)
    assert whole.second_of_video * 72 / 25 == pytest.approx(40 * 3 * 4.0 + 21 * 0.1)
    large = predict(card(), "06_720p_high_res")  # 2.25 times the tokens
    assert large.forward == pytest.approx(40 * (0.01 * 2.25 + 0.04 * 2.25**2))
    fast = predict(card(), "01_ultra_fast")  # no block resident: copied in once a step, while others compute
    assert fast.resident == 0
    assert fast.second_of_video * 72 / 25 == pytest.approx(4 * 2 * 40 * 0.05 + 21 * 0.1)
    slow = predict(dataclasses.replace(card(), copying=1e9), "01_ultra_fast")  # the copies take longer
    copying = transformer_size(WAN_14B, True, 4).block_bytes / 1e9
    assert copying > 2 * 0.05
    assert slow.second_of_video * 72 / 25 == pytest.approx(4 * 40 * copying + 21 * 0.1)


def test_sizes_are_the_real_ones():
    size = transformer_size(WAN_14B, False, 2)
    assert size.blocks * size.block_parameters + size.other_parameters == 18_882_046_784
    assert transformer_size(WAN_14B, True, 2).block_bytes == pytest.approx(size.block_bytes / 2, rel=0.01)


def test_what_does_not_run_is_said_and_not_predicted():
    lacking = card(block={FLOATS: 0.1, "fp8": Unavailable("the card's memory does not suffice")})
    assert predict(lacking, "01_ultra_fast") is None
    text = describe(lacking)
    assert "a block in fp8        the card's memory does not suffice" in text
    assert "01_ultra_fast             a piece of it does not run here" in text


def test_advice_tells_what_is_exact_and_what_is_not():
    text = describe(card(attention={"sdpa": 0.04, "flash": 0.02, "sage": 0.01, "cudnn_fp8": 0.016}))
    assert "--attention flash: faster here than sdpa, which is the default, and as exact." in text
    assert "--attention sage: 2.00 times as fast as flash, in 8 bits" in text and "cudnn_fp8:" not in text
    assert "--quant fp8: a block 2.00 times as fast as in 16 bits" in text
    text = describe(card(attention={"sdpa": 0.04, "cudnn_fp8": 0.03, "sage": Unavailable("not installed")}))
    assert "--attention cudnn_fp8: 1.33 times as fast as sdpa, in 8 bits" in text
    plain = card(attention={"sdpa": 0.04, "sage": 0.039}, block={FLOATS: 0.1, "fp8": 0.1})
    assert describe(plain).endswith("The defaults are the fastest ways here.")


def test_predictions_are_of_the_default_attention():
    """However fast another one is."""
    alone = predict(card(attention={"sdpa": 0.04}), "06_720p_high_res")
    assert predict(card(attention={"sdpa": 0.04, "cudnn_fp8": 0.01}), "06_720p_high_res") == alone
    assert predict(card(attention={"sdpa": Unavailable("does not fit"), "sage": 0.01}), "06_720p_high_res") is None


def test_the_vae_that_is_timed_has_the_sizes_of_the_real_one():
    with torch.device("meta"):
        made = wan_vae(96).state_dict()
    published = vae_table(dataclasses.replace(TINY, vae_dim=96))
    assert {name: tuple(tensor.shape) for name, tensor in made.items()} == {n: s.shape for n, s in published.items()}
    assert timing._random_vae(8, CPU).decode(torch.randn(16, 2, 4, 4)).isfinite().all()


def test_an_error_of_a_kernel_is_a_line(monkeypatch):
    def broken(*_):
        raise RuntimeError("no kernel image\nmore")

    monkeypatch.setattr(timing, "_decoding", broken)
    assert measure(CPU, SIZES).decoding == Unavailable("no kernel image")


def test_several_cards_share_a_step_and_what_is_exchanged_counts():
    alone = predict(card(), "04_high_quality")
    free, slow = (
        predict(card(cards=4, rates=Rates(link, 1e14)), "04_high_quality").second_of_video for link in (1e18, 2e10)
    )
    decoding = 21 * 0.1
    assert free * 72 / 25 - decoding == pytest.approx((alone.second_of_video * 72 / 25 - decoding) / 4)
    assert 1.1 < slow / free < 2
    text = describe(card(cards=4, rates=Rates(20e9, 1e14)))
    assert "between 4 cards       20.0 GB/s" in text


def test_no_cards_are_no_number(capfd):
    assert main(["bench", "--gpus", "0"]) == 2
    assert "--gpus: 0 found, at least 1 expected" in capfd.readouterr().err
