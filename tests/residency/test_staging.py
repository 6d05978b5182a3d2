"""What takes the way by pinned memory arrives as it was."""

import pytest
import torch
from infinitetalk.pipeline.residency import staging
from infinitetalk.pipeline.residency.staging import Staging


def test_on_a_cpu_nothing_is_copied():
    tensor = torch.zeros(10)
    assert Staging(torch.device("cpu")).to_device(tensor) is tensor


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8])
def test_every_piece_arrives(monkeypatch, dtype):
    monkeypatch.setattr(staging, "_SIZE", 2**20)
    way = Staging(torch.device("cuda"))
    for shape in ((), (3,), (1024, 1025), (4096, 1500)):  # small ones, and many pieces, each piece used again
        tensor = (torch.randn(shape) * 10).to(dtype)
        found = way.to_device(tensor)
        assert found.device.type == "cuda" and found.dtype == dtype
        assert torch.equal(found.cpu().float(), tensor.float())
        assert way.to_device(found) is found
    across = torch.randn(2048, 1024).T  # not in one piece
    assert torch.equal(way.to_device(across).cpu(), across)
    way.free()
    assert torch.equal(way.to_device(across.contiguous()).cpu(), across)
