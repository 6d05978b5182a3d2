"""Host memory that is made ahead: each piece its own, of the size asked for, and none left over."""

import gc
import weakref

import pytest
import torch
from infinitetalk.pipeline.residency import pinned
from infinitetalk.pipeline.residency.pinned import Ahead, PinnedMemory

CPU = torch.device("cpu")


@pytest.fixture
def made(monkeypatch):
    """Every piece of memory that is made as for a card, which need not be there."""
    monkeypatch.setattr(pinned, "pin", lambda owner, host, device: None)
    pieces = weakref.WeakSet()

    class Seen(PinnedMemory):
        def __init__(self, size, device):
            super().__init__(size, device)
            pieces.add(self)

    monkeypatch.setattr(pinned, "PinnedMemory", Seen)
    return pieces


@pytest.mark.parametrize("free", [None, 2**50, 0])
def test_each_taker_gets_memory_of_its_own(monkeypatch, made, free):
    monkeypatch.setattr(pinned, "available_host_memory", lambda: free)
    ahead = Ahead(torch.device("cuda"))
    taken = [ahead.take(size) for size in (100, 100, 5000, 100, 2**21, 2**21)]
    assert [len(memory.flat) for memory in taken] == [100, 100, 5000, 100, 2**21, 2**21]
    assert len({memory.flat.data_ptr() for memory in taken}) == len(taken)
    assert not any(memory.flat.any() for memory in taken)
    ahead.free()
    gc.collect()
    assert {*made} == {*taken}  # what was made ahead and not taken is gone
    del taken
    gc.collect()
    assert not made


def test_after_giving_back_it_goes_on(made):
    ahead = Ahead(torch.device("cuda"))
    for _ in range(2):
        assert len(ahead.take(10).flat) == 10
        ahead.free()


def test_a_cpu_needs_nothing_ahead(made):
    ahead = Ahead(CPU)
    memory = ahead.take(10)
    assert [*made] == [memory]
