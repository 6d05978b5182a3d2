"""What measures for minutes says first what it lacks, and loses nothing when a part fails."""

import torch
from infinitetalk.benchmarks import real_size


def test_what_is_lacking_is_said_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "CUDA card" in real_size.what_is_lacking(["vae"], None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert real_size.what_is_lacking(["vae"], None) is None
    assert "--upstream CLONE" in real_size.what_is_lacking(["vae", "upstream"], None)
    assert "is not a clone" in real_size.what_is_lacking(["upstream"], tmp_path)


def test_a_part_that_fails_says_why():
    def fails():
        raise RuntimeError("no room.\nmore")

    assert real_size.found_or_failed("vae", fails) == {"vae: failed": "no room"}
    assert real_size.found_or_failed("vae", lambda: {"seconds": 1.0}) == {"seconds": 1.0}
