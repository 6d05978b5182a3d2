"""Files of torch.save: the numbers are right, or the file is refused."""

import re
import zipfile

import pytest
import torch
from infinitetalk.pipeline.checkpoints import records
from infinitetalk.pipeline.checkpoints.files import open_tensors
from infinitetalk.pipeline.errors import InputError

WEIGHTS = {
    "float": torch.arange(4000.0).view(40, 100).mul(0.37).sin(),
    "half": torch.arange(30.0).half(),
    "brain": torch.arange(30.0).bfloat16(),
    "eight": torch.arange(16.0).to(torch.float8_e4m3fn),
    "whole": torch.arange(5),
    "view": torch.arange(12.0).view(3, 4).t(),
}


@pytest.fixture
def path(tmp_path):
    torch.save(WEIGHTS, tmp_path / "a.pth")
    return tmp_path / "a.pth"


def rewritten(path, change=lambda name, content: content, kind=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path) as archive:
        records = {name: change(name, archive.read(name)) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in records.items():
            archive.writestr(name, content)
    return path


def assert_right(path, weights=WEIGHTS):
    tensors = open_tensors(path, "weights")
    assert list(tensors) == list(weights)
    for name, expected in weights.items():
        assert torch.equal(tensors[name].float(), expected.float()), name


def test_numbers_come_back(path):
    assert_right(path)
    assert records.check_records(path)


def test_a_compressed_file_is_unpacked(path):
    assert_right(rewritten(path, kind=zipfile.ZIP_DEFLATED))
    assert not records.check_records(path)


def test_an_old_file_is_read(tmp_path):
    weights = {name: tensor for name, tensor in WEIGHTS.items() if name != "eight"}  # which that form cannot hold
    torch.save(weights, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert_right(tmp_path / "a.pth", weights)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_short_record_is_damage(path, kind):
    rewritten(path, lambda name, content: content[:-4] if name.endswith("data/0") else content, kind)
    with pytest.raises(InputError, match="is a damaged or incomplete PyTorch file"):
        open_tensors(path, "weights")


def test_a_file_that_unpacks_to_far_more_is_refused(path, monkeypatch):
    monkeypatch.setattr(records, "SMALL", 1 << 10)
    torch.save({"zeros": torch.zeros(1_000_000)}, path)
    with pytest.raises(InputError, match=re.escape("unpacks to 4000")):
        open_tensors(rewritten(path, kind=zipfile.ZIP_DEFLATED), "weights")


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.empty(3, device="meta")])
def test_tensors_without_plain_numbers_are_refused_by_name(path, tensor):
    torch.save({"good": torch.ones(2), "strange.one": tensor}, path)
    with pytest.raises(InputError, match="strange.one"):
        open_tensors(path, "weights")
