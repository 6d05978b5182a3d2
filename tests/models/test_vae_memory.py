"""What decoding and encoding hold at their worst moment at real size, counted on the meta device."""

import pytest
import torch
import torch.nn.functional as F
from infinitetalk.pipeline.models.vae.kernels import PlainVaeKernels, room_behind
from infinitetalk.pipeline.models.vae.layers import AttentionBlock, CausalConv3d, Downsample, ResidualBlock, Upsample
from infinitetalk.pipeline.models.vae.model import Coder, WanVAE
from infinitetalk.pipeline.planning.memory import VaePlan
from infinitetalk.tests.support.live import Live

FRAMES = 81


class FusedInOutline(PlainVaeKernels):
    """Takes the memory that the fused kernels take."""

    def norm_silu(self, x, bias, gamma, past, reach):
        joined = room_behind(None, x, reach)
        return joined, torch.empty_like(joined[:, :, :reach]) if past is None else past


@pytest.fixture(scope="module")
def vae():
    def blocks(*widths):
        return [ResidualBlock(a, b) for a, b in zip(widths, widths[1:], strict=False)]

    def middle():
        return [*blocks(384, 384), AttentionBlock(384), *blocks(384, 384)]

    with torch.device("meta"):
        down = [
            *(*blocks(96, 96, 96), Downsample(96, 96, False), *blocks(96, 192, 192), Downsample(192, 192, True)),
            *(*blocks(192, 384, 384), Downsample(384, 384, True), *blocks(384, 384, 384)),
        ]
        up = [
            *(*blocks(384, 384, 384, 384), Upsample(384, 192, True), *blocks(192, 384, 384, 384)),
            *(Upsample(384, 192, True), *blocks(192, 192, 192, 192), Upsample(192, 96, False)),
            *blocks(96, 96, 96, 96),
        ]
        encoder = Coder(3, 32, {"downsamples": down, "middle": middle()})
        decoder = Coder(16, 3, {"middle": middle(), "upsamples": up})
        vae = WanVAE(encoder, decoder, 16, FusedInOutline(""))
    return vae.to(torch.bfloat16).requires_grad_(False)


@pytest.fixture
def as_on_a_card(monkeypatch):
    def convolve(self, joined, kernels, bias=True):
        return F.conv3d(joined, self.weight, self.bias, self.stride, self.padding)

    def attend(q, k, v):
        return torch.empty_like(q)  # no card multiplies all positions with all others in memory

    monkeypatch.setattr(CausalConv3d, "convolve", convolve)
    monkeypatch.setattr(F, "scaled_dot_product_attention", attend)
    nothing = torch.zeros(16, 1, 1, 1, device="meta")
    monkeypatch.setattr(WanVAE, "_statistics", lambda self: (nothing, nothing))


@pytest.mark.usefixtures("as_on_a_card")
@pytest.mark.parametrize(
    ("side", "tiles", "most"),
    [
        *((640, 1, 3.3), (640, 4, 1.2), (960, 4, 2.6)),
        *(pytest.param(*case, marks=pytest.mark.long) for case in ((640, 2, 2.0), (960, 9, 1.6))),
    ],
)
def test_what_is_held_is_what_is_planned(vae, side, tiles, most):
    """In bf16, GiB; the plan has room for what cuDNN and the allocator take beside it."""
    plan = VaePlan(torch.bfloat16, tiles).bytes(side * side)
    held = {}
    with Live(meta=True) as live:
        for _ in vae.decode_frames(torch.empty(16, 21, side // 8, side // 8, device="meta"), tiles):
            pass
    held["decode"] = live.peak
    with Live(meta=True) as live:
        vae.encode_still(torch.empty(3, side, side, device="meta"), FRAMES, tiles)
    held["encode"] = live.peak
    assert max(held.values()) <= most * 2**30
    assert max(held.values()) <= plan <= 1.6 * max(held.values())
