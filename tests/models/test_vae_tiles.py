"""The VAE in tiles, and encoding only what changes, against whole pictures throughout."""

import pytest
import torch
from infinitetalk.pipeline.models.vae.kernels import choose_vae_kernels
from infinitetalk.pipeline.models.vae.layers import Upsample
from infinitetalk.pipeline.models.vae.model import WanVAE, load_vae
from infinitetalk.pipeline.models.vae.tiles import grid, plan_tiles
from infinitetalk.tests.golden.recipe import random_tensor
from infinitetalk.tests.golden.vae import golden_video
from infinitetalk.tests.support.golden_vae import error, saved, weights

EXACT = 1e-12  # of the largest value, in float64


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> WanVAE:
    """In float64, so that only the order of sums is left as a difference; latents and pixels leave as float32."""
    return load_vae(saved(tmp_path_factory.mktemp("vae"), weights()), dtype=torch.float64)


@pytest.fixture
def in_float64(monkeypatch):
    """Results keep float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize(
    ("height", "width", "tiles"),
    [
        *((5, 6, 4), (2, 11, 2), (13, 1, 3), (1, 1, 4), (2, 3, 6)),
        *(pytest.param(*case, marks=pytest.mark.long) for case in ((3, 5, 15), (9, 8, 4), (2, 23, 2), (25, 1, 3))),
    ],
)
def test_tiles_are_the_whole(vae, height, width, tiles):
    latents = random_tensor("latents", [16, 3, height, width]).double()
    whole = torch.cat(list(vae.decode_frames(latents)), dim=1)
    pieces = list(vae.decode_frames(latents, tiles))
    assert [piece.shape[1] for piece in pieces] == [1, 4, 4]
    assert whole.dtype == pieces[0].dtype == torch.float64
    assert error(torch.cat(pieces, dim=1), whole) < EXACT
    video = random_tensor("video", [3, 5, 8 * height, 8 * width]).double()
    assert error(vae.encode(video, tiles), vae.encode(video)) < EXACT
    assert error(vae.encode_still(video[:, 0], 17, tiles), vae.encode_still(video[:, 0], 17)) < EXACT


def test_the_finest_layers_carry_the_smallest_border(vae):
    steps = vae.decoder.steps[next(n for n, step in enumerate(vae.decoder.steps) if isinstance(step, Upsample)) :]
    first = plan_tiles(steps, 64, 64, 4)[0]
    sizes = [crop[0].stop for crop in first.crops]
    # Half of 64 latent rows, then what six blocks, three doublings and the head need beyond it.
    assert sizes[0] == 32 + 7
    assert sizes[-3:] == [256 + 3, 256 + 1, 256]
    places = {(tile.place[0].start, tile.place[1].start) for tile in plan_tiles(steps, 64, 64, 4)}
    assert places == {(0, 0), (0, 256), (256, 0), (256, 256)}


def test_tiles_follow_the_picture():
    assert [grid(count, 90, 60) for count in (1, 2, 3, 4, 6)] == [(1, 1), (2, 1), (3, 1), (2, 2), (3, 2)]
    assert grid(2, 60, 90) == (1, 2)


def test_tiles_in_half_precision(tmp_path):
    vae = load_vae(saved(tmp_path, weights()), dtype=torch.bfloat16)
    latents = random_tensor("latents", [16, 3, 8, 6])
    whole, tiled = vae.decode(latents), vae.decode(latents, tiles=2)
    assert (tiled - whole).norm() / whole.norm() < 0.01
    assert not torch.equal(whole[:, 1:], whole[:, :1].expand_as(whole[:, 1:]))


def test_a_still_is_encoded_only_while_something_changes(vae):
    """The result is that of all chunks, bit for bit, and the finest layers ran for a quarter of them."""
    image, calls = golden_video()[:, 0], {"conv1": 0, "head": 0}
    hooks = [
        layer.register_forward_hook(lambda *_, name=name: calls.update({name: calls[name] + 1}))
        for name, layer in (("conv1", vae.encoder.conv1), ("head", vae.encoder.head))
    ]
    still = vae.encode_still(image, 161)
    for hook in hooks:
        hook.remove()
    video = torch.cat([image[:, None], torch.zeros(3, 160, *image.shape[1:])], dim=1)
    assert torch.equal(still, vae.encode(video))
    assert calls["conv1"] == 3
    assert 20 < calls["head"] < 41
    assert not torch.equal(still[:, 15], still[:, 25])  # coarse layers remember long


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize("kernels", ["plain", "triton"])
def test_on_a_card_tiles_and_stills_are_as_elsewhere(tmp_path, kernels, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    card = torch.device("cuda")
    vae = load_vae(saved(tmp_path, weights()), card, kernels=choose_vae_kernels(kernels, card))
    cpu = load_vae(saved(tmp_path, weights()))
    latents, image = random_tensor("latents", [16, 4, 20, 18]), random_tensor("image", [3, 96, 80])
    expected = cpu.decode(latents)
    for tiles in (1, 4, 6):
        assert error(vae.decode(latents, tiles).cpu(), expected) < 1e-4
    video = torch.cat([image[:, None], torch.zeros(3, 80, *image.shape[1:])], dim=1)
    whole = vae.encode(video)
    assert torch.equal(vae.encode_still(image, 81), whole)
    assert error(whole.cpu(), cpu.encode(video)) < 1e-4
    assert error(vae.encode_still(image, 81, tiles=4), whole) < 1e-4
