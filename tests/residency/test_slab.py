"""Weights that wait in host memory: copied to a device, never back, and once in host memory."""

import pytest
import torch
from infinitetalk.pipeline.residency import slab
from infinitetalk.pipeline.residency.slab import HostWeights, Slab
from infinitetalk.tests.support.live import Live
from torch import nn

CPU = torch.device("cpu")


def layers():
    """Parameters and buffers of several dtypes, one with kernels in the order of the features."""
    module = nn.Sequential(nn.Conv3d(4, 6, 3), nn.BatchNorm1d(5), nn.Linear(3, 7)).requires_grad_(False)
    module[0].weight.data = module[0].weight.data.contiguous(memory_format=torch.channels_last_3d)
    module[2].to(torch.bfloat16)
    return module


def tensors(module):
    return [*module.parameters(), *module.buffers()]


def places(module):
    return [tensor.data_ptr() for tensor in tensors(module)]


@pytest.mark.parametrize("free", [2**50, 0])
def test_leaving_the_device_forgets_what_is_there(monkeypatch, free):
    monkeypatch.setattr(slab, "available_host_memory", lambda: free)
    module = layers()
    given, read = [tensor.clone() for tensor in tensors(module)], places(module)
    made = Slab(tensors(module), CPU)
    assert made.in_file == (free == 0) == (places(module) == read)
    waiting = places(module)
    for _ in range(2):
        made.to_device(CPU)  # which here is memory of its own
        assert not {*places(module)} & {*waiting}
        for tensor, expected in zip(tensors(module), given, strict=True):
            assert torch.equal(tensor, expected) and tensor.stride() == expected.stride()
            tensor.zero_()
        made.to_host()
        assert places(module) == waiting
        assert all(torch.equal(tensor, expected) for tensor, expected in zip(tensors(module), given, strict=True))


def test_host_memory_holds_weights_once(monkeypatch):
    monkeypatch.setattr(slab, "available_host_memory", lambda: None)
    with Live() as live:
        module = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(4))).requires_grad_(False)
        assert live.now == 4 * 64 * 64 * 4
        made = Slab(tensors(module), CPU)
        assert live.now == made.size == 4 * 64 * 64 * 4


def test_weights_that_are_there_already_are_left_alone():
    module, weights = layers(), HostWeights()
    before = places(module)
    for device in ("cpu", CPU):
        weights.move([module], device)
        assert places(module) == before


def test_views_of_one_piece_keep_their_layout():
    module = layers()
    given = [tensor.clone() for tensor in tensors(module)]
    made = Slab(tensors(module), CPU)
    made.leave()
    assert all(tensor.numel() == 0 for tensor in tensors(module))
    flat = torch.zeros(made.size, dtype=torch.uint8)
    made.write(made.place(flat))
    made.attach(flat)
    for tensor, expected in zip(tensors(module), given, strict=True):
        assert torch.equal(tensor, expected) and tensor.stride() == expected.stride()
        assert tensor.untyped_storage().data_ptr() == flat.data_ptr()
