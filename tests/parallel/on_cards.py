"""What the processes of these tests do; each imports this by its name."""

import tempfile
from pathlib import Path

import torch
from infinitetalk.pipeline.facts.storages import FP8_E4M3, INT8
from infinitetalk.pipeline.models.transformer.blocks import TransformerBlocks
from infinitetalk.pipeline.models.transformer.linear import Linear
from infinitetalk.pipeline.models.vae.model import load_vae
from infinitetalk.pipeline.parallel.division import Division
from infinitetalk.pipeline.parallel.transformer import SharedTransformer
from infinitetalk.pipeline.parallel.vae import SharedVae
from infinitetalk.pipeline.parallel.weights import SharedWeights
from infinitetalk.pipeline.quantisation.codes import CODES, pack
from infinitetalk.pipeline.sampling.teacache import TeaCache
from infinitetalk.tests.golden.recipe import random_tensor
from infinitetalk.tests.support.golden_vae import saved, weights
from infinitetalk.tests.support.several import step, transformer

# sums are cut differently where tokens are fewer
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
# of a latent frame's 35 and 6 tokens, no number of cards has equal parts of both
SIZES = ((10, 14), (4, 6))


def differences(cards):
    """By division, passes and size: the largest difference from one card, and from the same once more."""
    model, found = transformer(), {}
    divisions = {2: [(2, 1), (1, 2)], 4: [(4, 1), (2, 2), (1, 4)]}[cards.count]
    for size in SIZES:
        latents, reference, contexts = step(model, *size)
        alone = model(latents, reference, 500.0, contexts, model.blocks)
        for division in divisions:
            shared = SharedTransformer(model, cards, lambda passes, division=division: Division(*division))
            for passes in (1, 2, 3):
                call = latents, reference, 500.0, contexts[:passes], model.blocks
                first, again = shared(*call), shared(*call)
                for one, other in zip(first, again, strict=True):
                    assert torch.equal(one, other)
                for one, other in zip(first, alone, strict=False):
                    torch.testing.assert_close(one, other, **CLOSE)
                found[division, passes, size] = all(map(torch.equal, first, alone)), torch.stack(first)
    found["teacache"] = cached(model, cards, Division(*divisions[-1]))
    with_model_alone = model(latents, reference, 500.0, contexts, model.blocks)
    assert all(map(torch.equal, with_model_alone, alone))  # nothing of the division stays behind
    return found


def cached(model, cards, division):
    """How far steps with TeaCache, some of which are skipped, are from one card's."""
    latents, reference, contexts = step(model)
    shared = SharedTransformer(model, cards, lambda passes: division, one_division=True)
    caches = [
        TeaCache(0.15, (0.0, 0.0, 0.0, 0.0, 0.1)) for _ in range(2)
    ]  # lets every second step pass, from the sixth
    worst, computed = 0.0, 0
    for number in range(7):
        call = latents, reference, 900.0 - 40 * number, contexts[: 2 if number < 6 else 1], model.blocks
        before = caches[0].residuals
        for one, other in zip(shared(*call, caches[0]), model(*call, caches[1]), strict=True):
            worst = max(worst, (one - other).abs().max().item())
        computed += caches[0].residuals is not before
    return worst, computed


def sharded(cards):
    """By storage: whether a step is the same to the last bit where each card keeps a part of every block."""
    sharing, found = SharedWeights(cards.everyone), {}
    ways = [(99, True, False), (1, False, False), (cards.rank, True, True)]  # cards need not keep alike
    for name, storage in {"floats": None, "fp8": FP8_E4M3, "int8": INT8}.items():
        whole = TransformerBlocks(torch.device("cpu"), 99)
        alone = stepped(stored(storage, whole), whole)
        for way in ways:
            blocks = TransformerBlocks(torch.device("cpu"), *way, sharing=sharing)
            together = stepped(stored(storage, blocks), blocks)
            found[name, way[1:]] = all(map(torch.equal, together, alone))
    return found


def stored(storage, blocks):
    """The small transformer with its matrices in that storage, its blocks in ``blocks``."""
    model = transformer()
    for block in model.blocks:
        for layer in block.modules():
            if storage is not None and isinstance(layer, Linear):
                layer.store(pack(storage, layer.weight.data), model.operations.matmuls.of(CODES[storage]))
        blocks.add(block)
    return model


def stepped(model, blocks):
    """Two steps of two passes."""
    latents, reference, contexts = step(model, text_blocks=blocks.text, image_blocks=blocks.image)
    blocks.to_device()
    first = model(latents, reference, 900.0, contexts[:2], blocks)
    blocks.to_host()
    blocks.to_device()
    return [*first, *model(first[0], reference, 500.0, contexts[:2], blocks)]


def tiled(cards):
    """By tiles: whether the VAE gives what it gives on one card, and what each card has in the end."""
    with tempfile.TemporaryDirectory() as folder:
        vae = load_vae(saved(Path(folder), weights()))
    latents, video = random_tensor("latents", [16, 2, 4, 3]), random_tensor("video", [3, 5, 32, 24])
    found = {}
    for tiles in (1, 2, 3, 4):
        alone, together = (
            [one.encode(video, tiles), one.encode_still(video[:, 0], 13, tiles), *one.decode_frames(latents, tiles)]
            for one in (vae, SharedVae(vae, cards))
        )
        found[tiles] = all(map(torch.equal, alone, together))
    return found


def sharded_and_tiled(cards):
    return sharded(cards), tiled(cards)
