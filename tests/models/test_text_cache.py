"""The cache of text embeddings: a prompt seen before does not load the encoder, and nothing stale is returned."""

import os
from pathlib import Path

import pytest
import torch
from infinitetalk.pipeline.checkpoints.lookup import TextFiles, find_text_files
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.models.text.cache import default_cache_dir, encode_prompts, text_identity


class Encoder:
    """Counts how often it is loaded and what it encodes."""

    def __init__(self):
        self.loads = 0
        self.encoded = []

    def load(self):
        self.loads += 1
        return self

    def encode(self, prompts):
        self.encoded += prompts
        return [torch.full((len(prompt), 3), float(len(prompt)), dtype=torch.bfloat16) for prompt in prompts]


def test_a_prompt_seen_before_does_not_load_the_encoder(tmp_path):
    encoder = Encoder()
    first = encode_prompts(["abc", "de", "abc"], encoder.load, "model", tmp_path / "text")
    assert encoder.encoded == ["abc", "de"]
    second = encode_prompts(["de", "abc", " abc  "], encoder.load, "model", tmp_path / "text")
    assert encoder.loads == 1
    assert [len(embedding) for embedding in second] == [2, 3, 3]
    assert torch.equal(second[1], first[0])
    assert second[0].dtype == torch.bfloat16
    encode_prompts(["abc", "new"], encoder.load, "model", tmp_path / "text")
    assert encoder.encoded == ["abc", "de", "new"]
    encode_prompts(["abc"], encoder.load, "another model", tmp_path / "text")
    assert encoder.loads == 3
    assert {file.suffix for file in (tmp_path / "text").iterdir()} == {".safetensors"}


def test_without_a_cache(tmp_path):
    encoder = Encoder()
    for _ in range(2):
        assert len(encode_prompts(["abc"], encoder.load, "model", None)[0]) == 3
    assert encoder.loads == 2


def test_a_flipped_bit_in_the_numbers_is_noticed(tmp_path):
    encoder = Encoder()
    (right,) = encode_prompts(["abc"], encoder.load, "model", tmp_path)
    (file,) = tmp_path.iterdir()
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    assert torch.equal(encode_prompts(["abc"], encoder.load, "model", tmp_path)[0], right)
    assert encoder.loads == 2


@pytest.mark.parametrize("damage", [b"", b"no safetensors", None])
def test_a_broken_file_is_made_anew(tmp_path, damage):
    encoder = Encoder()
    encode_prompts(["abc"], encoder.load, "model", tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] if damage is None else damage)
    assert len(encode_prompts(["abc"], encoder.load, "model", tmp_path)[0]) == 3
    assert encoder.loads == 2
    assert file.read_bytes() == whole


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path):
    (tmp_path / "file").touch()
    assert len(encode_prompts(["abc"], Encoder().load, "model", tmp_path / "file")[0]) == 3
    encode_prompts(["abc"], Encoder().load, "model", tmp_path / "text")
    (file,) = (tmp_path / "text").iterdir()
    file.unlink()
    (file / "in the way").mkdir(parents=True)
    assert len(encode_prompts(["abc"], Encoder().load, "model", tmp_path / "text")[0]) == 3
    assert list((tmp_path / "text").iterdir()) == [file]


def test_the_identity_is_that_of_everything_that_decides(tmp_path):
    model = tmp_path / "t5.pth"
    model.write_bytes(bytes(3 << 20))
    os.utime(model, ns=(10, 10))
    tokenizer = tmp_path / "tokenizer.json"
    identities = []

    def identity(tokenizer_path=None, dtype=torch.float32):
        identities.append(text_identity(find_text_files(model, tokenizer_path, None), dtype))
        return identities[-1]

    assert identity() == identity()
    identities.clear()
    identity()
    identity(dtype=torch.bfloat16)
    os.utime(model, ns=(10, 20))
    identity()
    model.write_bytes(b"x" + bytes((3 << 20) - 1))
    os.utime(model, ns=(10, 20))
    identity()
    model.write_bytes(b"x" + bytes((3 << 20) - 2) + b"x")
    os.utime(model, ns=(10, 20))
    identity()
    tokenizer.write_text("a")
    identity()
    tokenizer.write_text("b")
    identity()
    identity(tokenizer)
    assert len(set(identities)) == len(identities) == 8
    for path in (tmp_path / "absent.pth", tmp_path):
        with pytest.raises(InputError, match=f"{path.name} is not a file"):
            text_identity(TextFiles(path, None), torch.float32)


def test_where_the_cache_is(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("home"))
    for name in ("INFINITETALK_CACHE", "LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    text = Path("infinitetalk") / "text"
    for platform, variable, fallback in (
        ("linux", "XDG_CACHE_HOME", Path("home") / ".cache"),
        ("win32", "LOCALAPPDATA", Path("home") / "AppData" / "Local"),
        ("darwin", None, Path("home") / "Library" / "Caches"),
    ):
        monkeypatch.setattr("sys.platform", platform)
        assert default_cache_dir() == fallback / text
        if variable:
            monkeypatch.setenv(variable, "elsewhere")
            assert default_cache_dir() == Path("elsewhere") / text
    monkeypatch.setenv("INFINITETALK_CACHE", "own")
    assert default_cache_dir() == Path("own") / "text"


def test_no_home_is_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("INFINITETALK_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert default_cache_dir() is None
