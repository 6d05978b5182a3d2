"""The doctor tells what is there, what is missing and why it matters, and its verdict follows from that."""

import av
import pytest
import torch
from infinitetalk.pipeline.commands import ways
from infinitetalk.pipeline.commands.doctor import BAD, FINE, MISSING, Finding, describe, examine
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.facts import packages


def found(name):
    return next(finding for finding in examine() if finding.what == name)


def test_everything_a_run_needs_is_there_and_told(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    for name in ("torch", "transformers", "PyAV", "host memory", "disk", "attention", "fp8 products"):
        assert f" {name} " in text
    assert torch.__version__ in text and text.rstrip().endswith("nothing stands in the way")


def test_doctor_takes_no_words(capsys):
    assert main(["doctor", "card"]) == 2
    assert "doctor: 'card' stands where a flag was expected" in capsys.readouterr().err


def test_quick_leaves_out_what_needs_pytorch():
    quick, whole = ([finding.what for finding in examine(quick)] for quick in (True, False))
    assert quick == whole[: len(quick)] and "torch" in quick and "attention" in whole[len(quick) :]


def test_without_pytorch_or_pyav_it_says_so(monkeypatch):
    there = packages.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in ("torch", "av") else there(name))
    assert found("torch").mark == found("PyAV").mark == BAD


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a CUDA card")
def test_without_a_card_it_says_what_that_means():
    [card] = [finding for finding in examine() if finding.what.startswith("card")]
    assert card.mark == MISSING and "no CUDA card" in card.found
    assert found("fp8 products").mark == MISSING and "weights are read back" in found("fp8 products").found
    assert "needs a CUDA card" in found("  cudnn").found and "needs a CUDA card" in found("  cudnn_fp8").found


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA card")
def test_with_a_card_each_way_is_tried():
    assert found("card 0").mark == FINE and torch.cuda.get_device_name(0) in found("card 0").found
    assert found("  cudnn").mark in (FINE, MISSING) and found("  cudnn_fp8").mark in (FINE, MISSING)


def test_a_missing_package_is_named_with_its_use(monkeypatch):
    there = packages.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in ("soxr", "diffusers") else there(name))
    assert found("soxr") == Finding(BAD, "soxr", "not installed: pip install soxr (for resampling speech)")
    assert found("diffusers").mark == MISSING and "--sample_solver unipc" in found("diffusers").found
    assert describe(examine()).endswith("to mend first: soxr")


def test_an_old_package_is_told_with_what_is_needed(monkeypatch):
    monkeypatch.setattr(packages, "version", lambda name: "0.34.0")
    assert found("diffusers").mark == MISSING and "0.34.0, 0.35 or newer is needed" in found("diffusers").found


def test_a_pyav_that_cannot_write(monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"h264"})
    assert found("PyAV").mark == BAD and "libx264" in found("PyAV").found


def test_attention_that_breaks_is_told_and_not_raised(monkeypatch):
    def broken(name, device, dtype):
        def attend(q, k, v):
            raise RuntimeError("no kernel image\nmore")

        return attend if name == "sage" else there(name, device, dtype)

    there = ways.choose_attention
    monkeypatch.setattr(ways, "choose_attention", broken)
    assert found("  sage") == Finding(MISSING, "  sage", "does not work here (no kernel image)")
