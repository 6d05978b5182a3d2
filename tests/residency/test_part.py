"""Blocks of which several cards each keep a part: one process stands for all of them here."""

from dataclasses import dataclass, field

import pytest
import torch
from infinitetalk.pipeline.checkpoints.files import open_tensors
from infinitetalk.pipeline.checkpoints.load import fill
from infinitetalk.pipeline.residency import part
from infinitetalk.pipeline.residency.part import Part
from infinitetalk.pipeline.residency.staging import Staging
from infinitetalk.pipeline.residency.streamer import BlockStreamer
from safetensors.torch import save_file
from torch import nn

CPU = torch.device("cpu")


@dataclass
class Together:
    """One of ``count`` cards: fills in what the others keep of the block that its own part is of."""

    place: int
    count: int
    all: list["Together"]
    parts: list[Part] = field(default_factory=list)

    def gather(self, whole):
        index = next(index for index, kept in enumerate(self.parts) if torch.equal(kept.place(whole), own(kept)))
        for card in self.all:
            card.parts[index].write(card.parts[index].place(whole))


def own(kept):
    found = torch.zeros(kept.size // kept._sharing.count, dtype=torch.uint8)
    kept.write(found)
    return found


def cards(count):
    everyone: list[Together] = []
    everyone += [Together(place, count, everyone) for place in range(count)]
    return everyone


def tensors():
    """Of every kind that weights are kept in, none of a size that is cut evenly, one with its columns in order."""
    torch.manual_seed(0)
    return [
        torch.randn(7, 33),
        torch.randn(5).to(torch.bfloat16),
        torch.randn(31, 17).to(torch.float8_e4m3fn),
        torch.randint(-127, 128, (11, 13), dtype=torch.int8),
        torch.randn(()),
        torch.randint(0, 256, (3, 210), dtype=torch.uint8),
        torch.randn(9, 21).T,
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("stays", [False, True])
@pytest.mark.parametrize("free", [2**50, 0])
def test_all_parts_make_the_whole(monkeypatch, count, stays, free):
    monkeypatch.setattr(part, "available_host_memory", lambda: free)
    everyone = cards(count)
    kept, given = {}, {}
    for card in everyone:
        given[card.place] = [nn.Parameter(each, requires_grad=False) for each in tensors()]
        made = kept[card.place] = Part(given[card.place], card, Staging(CPU), stays)
        card.parts.append(made)
        assert made.in_file == (free == 0 and not stays and bool(made._sources))
        assert all(each.numel() == 0 for each in given[card.place])
    for place, made in kept.items():
        for move in (lambda: None, made.stay, made.give_back, made.go):
            move()
            flat = torch.zeros(made.size + 256, dtype=torch.uint8)
            made.write(made.place(flat))
            made.complete(flat)
            made.attach(flat)
            for found, expected in zip(given[place], tensors(), strict=True):
                assert found.dtype == expected.dtype and torch.equal(*(x.float() for x in (found, expected)))
            made.leave()


def test_of_a_file_only_this_cards_bytes_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(part, "available_host_memory", lambda: 0)
    save_file({"weight": torch.randn(64, 64), "bias": torch.randn(64)}, tmp_path / "layer.safetensors")
    with torch.device("meta"):
        block = nn.Linear(64, 64)
    fill(block, open_tensors(tmp_path / "layer.safetensors", "a layer"), "a layer")
    at, size = block.weight.data_ptr(), block.weight.nbytes
    kept = Part(block.parameters(), cards(2)[1], Staging(CPU))
    places = [(piece.source.data_ptr(), len(piece.source)) for piece in kept._sources]
    half = kept.size // 2
    assert places[0] == (at + half, size - half) and sum(length for _, length in places) <= half


@pytest.mark.parametrize("resident", [0, 1, 3, 5])
@pytest.mark.parametrize("offload", [False, True])
def test_blocks_come_whole_from_two_cards(resident, offload):
    """The second card keeps as many as it likes: what is gathered is the same."""
    everyone = cards(2)
    streamers, weights = [], None
    for card, stay in zip(everyone, (resident, 2), strict=True):
        torch.manual_seed(0)
        blocks = [nn.Linear(3, 5 + number).requires_grad_(False) for number in range(5)]
        weights = [block.weight.clone() for block in blocks]
        streamer = BlockStreamer(CPU, stay, offload, sharing=card)
        for block in blocks:
            streamer.add(block)
        card.parts = [streamer._slabs[index] for index in range(5)]
        streamers.append(streamer)
    streamer = streamers[0]
    for _ in range(2):
        streamer.to_device()
        for _ in range(2):
            assert all(torch.equal(block.weight, weights[index]) for index, block in enumerate(streamer))
        assert all(block.weight.numel() == 0 for block, _ in streamer._blocks)
        streamer.to_host()
    streamer.place(0)
    streamer.to_device()
    assert all(torch.equal(block.weight, weights[index]) for index, block in enumerate(streamer))
