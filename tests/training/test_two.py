"""Training of the checkpoint for two speakers: what learns computes what the engine does, and pairs are drawn right."""

from dataclasses import replace

import pytest
import torch
from infinitetalk.pipeline.models.transformer.attention import choose_attention
from infinitetalk.pipeline.models.transformer.block import Operations
from infinitetalk.pipeline.models.transformer.model import Context, WanTransformer
from infinitetalk.pipeline.models.transformer.pointwise import choose_pointwise
from infinitetalk.pipeline.models.transformer.speakers import bound
from infinitetalk.training import transformer_network, two
from infinitetalk.training.latents import Set, Texts
from infinitetalk.training.transformer import loss_of

CPU = torch.device("cpu")
CONFIG = replace(transformer_network.CONFIG, dim=64, ffn_dim=96, num_heads=2, num_layers=2)


@pytest.fixture(scope="module")
def parameters():
    generator = torch.Generator().manual_seed(1)
    return {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in transformer_network.initial_parameters(CONFIG).items()
    }


def test_two_speakers_in_training_are_the_engines(parameters):
    engine = WanTransformer(
        CONFIG, Operations(choose_attention("sdpa", CPU, torch.float32), choose_pointwise("plain", CPU))
    )
    engine.load_state_dict(parameters)
    torch.manual_seed(0)
    latents, reference = torch.randn(2, 16, 3, 4, 6), torch.randn(2, 20, 3, 4, 6)
    text, image = torch.randn(2, 7, CONFIG.text_dim), torch.randn(2, 9, CONFIG.image_dim)
    speech = torch.randn(2, 2, 9, 5, 4, 96)
    masks = torch.tensor([[[1, 0, 0, 1, 0, 0], [0, 0, 1, 0, 0, 0]]] * 2)
    masks = torch.cat([masks, 1 - masks.sum(1, keepdim=True)], dim=1)
    padded = torch.nn.functional.pad(text, (0, 0, 0, 505))
    speech[1, 1] = speech[0, 1]  # the second hears one voice alone
    given = transformer_network.Pair(
        reference, padded, image, speech[0], speech[1], masks.float(), torch.tensor([1.0, 0.0])
    )
    network = transformer_network.Network(CONFIG, parameters)
    with torch.no_grad():
        batch = network(latents, torch.tensor([700.0, 123.0]), given)
        for k, timestep in enumerate((700.0, 123.0)):
            keys = engine.encode_text(text[k], engine.blocks), engine.encode_image(image[k], engine.blocks)
            voices = [engine.embed_speech(voice[k]) for voice in speech]
            heard = bound(voices, masks[k]) if k == 0 else voices[0]
            (alone,) = engine(latents[k], reference[k], timestep, [Context(*keys, heard)], engine.blocks)
            torch.testing.assert_close(batch[k], alone, rtol=1e-3, atol=1e-3)


def test_pairs_learn_from_clips_beside_each_other(parameters):
    torch.manual_seed(0)
    people, side, length = 4, 24, 4
    data = Set(
        latents=torch.randn(3 * people, 16, length, side, side),
        motion=torch.randn(3 * people, 16, 3, side, side),
        first=torch.tensor([True, False, True] * people),
        where=torch.rand(3 * people, length, 2, 2),
        reference=torch.randn(people, 16, 9, side, side),
        image=torch.randn(people, 9, CONFIG.image_dim),
        speech=torch.randn(3 * people, 4 * length + 1, 4, 96),
        mood=torch.tensor([0, 1, 1] * people),
    )
    texts = Texts(torch.randn(2, 3, 512, CONFIG.text_dim), torch.randn(2, 512, CONFIG.text_dim))
    sampler = two.PairSampler(data, texts, first=0, count=6)
    clean, pair, known, held, weight = sampler.draw()
    assert clean.shape == known.shape == (6, 16, length, side, 2 * side) and held.shape == (6, length)
    assert weight.shape == (6, length, side, 2 * side) and pair.reference.shape[-1] == 2 * side
    assert pair.masks.shape == (6, 3, 12 * 24) and torch.equal(pair.masks.sum(1), torch.ones(6, 288))
    assert (pair.masks.sum(2) > 0).all()
    columns = (pair.masks.unflatten(2, (12, 24)).sum(2) > 0)[:, :2]
    assert all(
        a.nonzero().max() < 12 <= b.nonzero().min() or b.nonzero().max() < 12 <= a.nonzero().min() for a, b in columns
    )
    trained = {n: p.clone().requires_grad_() for n, p in parameters.items() if any(part in n for part in two.TRAINED)}
    loss = loss_of(transformer_network.Network(CONFIG, parameters | trained), sampler)
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in trained.values())


def test_turns_leave_silence():
    sounds = torch.rand(40, 12 * 16_000) + 0.1
    found = two.with_turns(sounds)
    spoken = (found != 0).float().mean(1)
    assert (spoken == 0).any() and (spoken == 1).any() and ((spoken > 0.1) & (spoken < 0.9)).any()
    assert torch.equal(found[found != 0], sounds[found != 0])
