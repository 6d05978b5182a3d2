"""Where this computer's memory does not hold what is copied to a card: which weights can stay in their file."""

from types import SimpleNamespace

import pytest
import torch
from infinitetalk.pipeline.checkpoints.files import tensors_from_dict
from infinitetalk.pipeline.facts.sizes import GIB
from infinitetalk.pipeline.models.transformer.matrices import StorageRequest, TransformerSize, plan_storage
from infinitetalk.pipeline.planning.memory import Placement, host_bytes
from infinitetalk.pipeline.residency import host_memory
from infinitetalk.pipeline.residency.host_memory import HOST_RESERVE, available_host_memory, host_memory_notice

SIZE = TransformerSize(4, 464, 316, 64, 128, block_bytes=700, context_bytes=200, other_bytes=600, scratch=0)


@pytest.mark.parametrize(
    ("placement", "offload", "expected"),
    [
        (Placement(4, True), False, 0),
        (Placement(4, False), False, 800),
        (Placement(1, False), False, 3 * 700 + 800),
        (Placement(4, True), True, 4 * 900),
        (Placement(0, False), True, 4 * 900),
    ],
)
def test_host_memory_holds_what_does_not_stay_once(placement, offload, expected):
    assert host_bytes(SIZE, placement, offload) == expected


def test_the_system_and_its_container_tell_how_much_is_free(tmp_path):
    assert available_host_memory(tmp_path) is None
    group = tmp_path / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (tmp_path / "proc").mkdir()
    meminfo = "MemTotal:       16000 kB\nMemAvailable:    9000 kB\nHugePages_Total:       0\n"
    (tmp_path / "proc" / "meminfo").write_text(meminfo)
    assert available_host_memory(tmp_path) == 9000 * 1024
    (group / "memory.current").write_text("5000000\n")
    (group / "memory.stat").write_text("anon 3000000\ninactive_file 1000000\nactive_file 500000\n")
    for limit, expected in (("max", 9000 * 1024), ("6000000", 2_500_000), ("600000000", 9000 * 1024)):
        (group / "memory.max").write_text(f"{limit}\n")
        assert available_host_memory(tmp_path) == expected


def test_this_system_tells():
    free = available_host_memory()
    assert free is None or 2**20 < free < 2**50


def test_too_little_is_said_with_what_helps(monkeypatch):
    monkeypatch.setattr(host_memory, "available_host_memory", lambda: 20 * GIB)
    assert host_memory_notice(20 * GIB - HOST_RESERVE, made=True) == ""
    from_file, made = (host_memory_notice(30 * GIB, made=made) for made in (False, True))
    assert "30.0 GiB" in from_file and "20.0 GiB are free" in from_file and "read from its file" in from_file
    assert "infinitetalk convert" in made and "infinitetalk convert" not in from_file
    monkeypatch.setattr(host_memory, "available_host_memory", lambda: None)
    assert host_memory_notice(30 * GIB, made=True) == ""


@pytest.mark.parametrize(
    ("asked", "touched", "dense", "expected"),
    [
        (StorageRequest(torch.bfloat16), "", False, False),
        (StorageRequest(torch.float32), "", False, True),
        (StorageRequest(torch.bfloat16, "fp8"), "", False, True),
        (StorageRequest(torch.bfloat16), "blocks.0.ffn.0.weight", False, True),
        (StorageRequest(torch.bfloat16, lora_mode="side"), "blocks.0.ffn.0.weight", False, False),
        (StorageRequest(torch.bfloat16, lora_mode="side"), "blocks.0.ffn.0.weight", True, True),
        (StorageRequest(torch.bfloat16), "blocks.0.ffn.0.bias", False, False),
    ],
)
def test_what_the_file_holds_as_it_is_kept_can_stay_there(asked, touched, dense, expected):
    weights = {"blocks.0.ffn.0.weight": torch.zeros(4, 4), "blocks.0.ffn.0.bias": torch.zeros(4)}
    tensors = tensors_from_dict({name: tensor.bfloat16() for name, tensor in weights.items()})
    loras = SimpleNamespace(touches=lambda name: name == touched, has_dense=lambda name: dense)
    for given, made in ((loras, expected), (None, expected and not touched)):
        assert plan_storage("blocks.0.ffn.0.weight", tensors, given, asked)[1] == made
