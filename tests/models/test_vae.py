"""The Wan VAE against upstream and diffusers, its streams, its files and its messages."""

from itertools import zip_longest

import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.models.vae.layers import Stream
from infinitetalk.pipeline.models.vae.model import LATENT_MEAN, LATENT_STD, WanVAE, load_vae
from infinitetalk.tests.golden.recipe import random_tensor
from infinitetalk.tests.golden.vae import LATENTS, golden_video, golden_weights
from infinitetalk.tests.support.golden_vae import GOLDEN, NOTES, error, saved, weights


@pytest.fixture(scope="module")
def vae(tmp_path_factory) -> WanVAE:
    return load_vae(saved(tmp_path_factory.mktemp("vae"), weights()))


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return random_tensor("latents", LATENTS)


def test_encode_as_upstream(vae):
    assert error(vae.encode(golden_video()), GOLDEN["latents"]) < 1e-5


def test_decode_as_upstream(vae, latents):
    assert error(vae.decode(latents), GOLDEN["decoded"]) < 1e-5


def test_as_diffusers(vae, latents):
    diffusers = pytest.importorskip("diffusers")
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    config = dict(NOTES["config"])
    oracle = diffusers.AutoencoderKLWan(base_dim=config.pop("dim"), **config)
    oracle.load_state_dict(convert_wan_vae_to_diffusers(weights()))
    mean, std = (torch.tensor(values).view(1, -1, 1, 1, 1) for values in (LATENT_MEAN, LATENT_STD))
    assert oracle.config.latents_mean == pytest.approx(LATENT_MEAN)
    assert oracle.config.latents_std == pytest.approx(LATENT_STD)
    with torch.no_grad():
        encoded = oracle.encode(golden_video()[None]).latent_dist.mode()
        decoded = oracle.decode(latents[None] * std + mean).sample
    assert error(vae.encode(golden_video()), ((encoded - mean) / std)[0]) < 1e-5
    assert error(vae.decode(latents), decoded[0]) < 1e-5


def test_pieces_are_the_whole(vae, latents):
    pieces = list(vae.decode_frames(latents))
    assert [tuple(piece.shape) for piece in pieces] == [(3, 1, 24, 40)] + [(3, 4, 24, 40)] * 4
    assert torch.equal(torch.cat(pieces, dim=1), vae.decode(latents))


def test_larger_pieces_give_the_same(vae):
    """The layers take any number of frames after the first one."""
    video, latents = golden_video()[None], random_tensor("decoder input", [1, *LATENTS])
    with torch.no_grad():
        for coder, x, step in ((vae.encoder, video, 4), (vae.decoder, latents, 1)):
            small, large = Stream(vae.kernels), Stream(vae.kernels)
            pieces = [coder(piece, small) for piece in (x[:, :, :1], *x[:, :, 1:].split(step, dim=2))]
            larger = [coder(piece, large) for piece in (x[:, :, :1], *x[:, :, 1:].split(2 * step, dim=2))]
            assert (len(pieces), len(larger)) == (5, 3)
            assert error(torch.cat(larger, dim=2), torch.cat(pieces, dim=2)) < 1e-5


def test_streams_do_not_disturb_each_other(vae, latents):
    other = random_tensor("other latents", [16, 4, 4, 3])
    alone, other_alone = list(vae.decode_frames(latents)), list(vae.decode_frames(other))
    encoded = vae.encode(golden_video())
    together = zip_longest(vae.decode_frames(latents), vae.decode_frames(other))
    for found, expected in zip(together, zip_longest(alone, other_alone), strict=True):
        for a, b in zip(found, expected, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)
        assert torch.equal(vae.encode(golden_video()), encoded)


def test_the_past_does_not_see_the_future(vae, latents):
    video = golden_video()
    assert torch.equal(vae.encode(video[:, :1]), vae.encode(video)[:, :1])
    assert torch.equal(vae.decode(latents[:, :2]), vae.decode(latents)[:, :5])


def test_frames_beyond_the_last_four_are_ignored(vae):
    video = golden_video()
    assert torch.equal(vae.encode(video[:, :16]), vae.encode(video[:, :13]))


def test_still_is_the_image_and_zeros(vae):
    image = golden_video()[:, 0]
    video = torch.cat([image[:, None], torch.zeros(3, 16, *image.shape[1:])], dim=1)
    assert torch.equal(vae.encode_still(image, 17), vae.encode(video))
    assert vae.encode_still(image, 1).shape == (16, 1, 3, 5)


def test_input_stays_as_it_was(vae, latents):
    video, before = golden_video(), latents.clone()
    vae.encode(video)
    vae.decode(latents)
    assert torch.equal(video, golden_video())
    assert torch.equal(latents, before)


def test_results_are_ordinary_tensors(vae, latents):
    decoded = vae.decode(latents[:, :1].bfloat16())
    assert decoded.dtype == torch.float32
    assert not decoded.requires_grad
    assert not decoded.is_inference()
    assert decoded.abs().max() <= 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(tmp_path, latents, dtype):
    vae = load_vae(saved(tmp_path, weights()), dtype=dtype)
    assert {p.dtype for p in vae.parameters()} == {dtype}
    for found, expected in ((vae.encode(golden_video()), "latents"), (vae.decode(latents), "decoded")):
        assert found.dtype == torch.float32
        assert (found - GOLDEN[expected]).norm() / GOLDEN[expected].norm() < 0.02


def test_values_are_clamped(tmp_path, latents):
    tensors = weights()
    tensors["decoder.head.2.bias"] += 5
    assert load_vae(saved(tmp_path, tensors)).decode(latents[:, :2]).max() == 1


@pytest.mark.parametrize("prefix", ["", "model."])
def test_safetensors_with_and_without_prefix(tmp_path, latents, prefix):
    path = saved(tmp_path, {prefix + name: tensor for name, tensor in weights().items()})
    assert error(load_vae(path).decode(latents), GOLDEN["decoded"]) < 1e-5


def test_pth(tmp_path, latents):
    torch.save(weights(), tmp_path / "Wan2.1_VAE.pth")
    assert error(load_vae(tmp_path / "Wan2.1_VAE.pth").decode(latents), GOLDEN["decoded"]) < 1e-5


def test_pruned_decoder_loads(tmp_path, vae, latents):
    """A decoder of half the width beside a full encoder, as lightVAE has it."""

    def halved(name: str, shape: list[int]) -> list[int]:
        widths = [size // 2 if size > 3 else size for size in shape[:2]]
        return [*widths, *shape[2:]] if name.startswith("decoder.") else shape

    shapes = {name: halved(name, shape) for name, shape in NOTES["shapes"].items()}
    shapes["decoder.conv1.weight"][1] = 16
    small = load_vae(saved(tmp_path, golden_weights(shapes)))
    assert small.decoder.conv1.out_channels == vae.decoder.conv1.out_channels // 2
    assert small.decode(latents[:, :2]).shape == (3, 5, 24, 40)
    assert torch.equal(small.encode(golden_video()[:, :5]), vae.encode(golden_video()[:, :5]))


@pytest.mark.parametrize("tiles", [1, 2])
@pytest.mark.parametrize("shape", [(1, 1, 16, 16), (3, 1, 12, 16), (3, 1, 16, 20)])
def test_wrong_frames(vae, shape, tiles):
    with pytest.raises(ValueError, match=r"expected \[3, 1, 8 h, 8 w\]"):
        vae.encode(torch.zeros(shape), tiles)


def wan22(tensors):
    tensors["conv2.weight"] = torch.zeros(48, 48, 1, 1, 1)


def eight_channels(tensors):
    tensors["conv2.weight"] = torch.zeros(8, 8, 1, 1, 1)


def diffusers_names(tensors):
    tensors["encoder.down_blocks.0.conv1.weight"] = torch.zeros(1)


def another_kind(tensors):
    tensors.clear()
    tensors["decoder.1.weight"] = torch.zeros(1)


def without_layer(tensors):
    for name in [name for name in tensors if name.startswith("decoder.upsamples.4.")]:
        del tensors[name]


def without_middle(tensors):
    for name in [name for name in tensors if name.startswith("encoder.middle.")]:
        del tensors[name]


def without_bias(tensors):
    del tensors["decoder.middle.0.residual.6.bias"]


def without_time_conv(tensors):
    del tensors["encoder.downsamples.5.time_conv.weight"]
    del tensors["encoder.downsamples.5.time_conv.bias"]


def misfit_between_layers(tensors):
    tensors["decoder.upsamples.0.residual.2.weight"] = torch.zeros(24, 24, 3, 3, 3)


def wrong_shape(tensors):
    tensors["decoder.head.2.weight"] = torch.zeros(12, 8, 3, 3, 3)


def unknown_layer(tensors):
    tensors["decoder.upsamples.3.avg_shortcut.weight"] = torch.zeros(1)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (wan22, r"is the Wan 2\.2 VAE \(48 channels\).*give the Wan 2\.1 VAE"),
        (eight_channels, r"is a VAE of 8 channels.*give the Wan 2\.1 VAE"),
        (diffusers_names, r"names of diffusers.*Wan2\.1_VAE\.pth"),
        (another_kind, r"a file of another kind.*decoder\.1\.weight"),
        (without_layer, r"lacks decoder\.upsamples\.4"),
        (without_middle, r"lacks encoder\.middle\.0"),
        (without_bias, r"lacks decoder\.middle\.0\.residual\.6\.bias"),
        (without_time_conv, r"encoder .* 3 times in space and 1 times in time, expected 3 and 2"),
        (misfit_between_layers, r"decoder .* gives 32 channels and the next takes 24"),
        (wrong_shape, r"decoder\.head\.2\.weight of shape \[12, 8, 3, 3, 3\], expected \[3, 8, 3, 3, 3\]"),
        (unknown_layer, r"has decoder\.upsamples\.3\.avg_shortcut\.weight, which the Wan 2\.1 VAE lacks"),
    ],
)
def test_unfit_files(tmp_path, spoil, sentence):
    tensors = weights()
    spoil(tensors)
    path = saved(tmp_path, tensors)
    with pytest.raises(InputError, match=sentence) as caught:
        load_vae(path)
    assert str(path) in str(caught.value)
    assert "--vae" in str(caught.value)
