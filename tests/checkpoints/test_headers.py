"""Headers are read without PyTorch, and refuse what the safetensors library refuses."""

import json
import subprocess
import sys

import pytest
import torch
from infinitetalk.pipeline.checkpoints.files import open_tensors
from infinitetalk.pipeline.checkpoints.headers import SAFETENSORS_DTYPES, read_header
from infinitetalk.pipeline.errors import InputError
from infinitetalk.tests.support.gguf_files import write_gguf
from infinitetalk.tests.support.other_layouts import comfy_quant
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

GOOD = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
DAMAGED = {
    "no JSON": b"{",
    "a list": b"{]",
    "no shape": {"a": {"dtype": "F32", "data_offsets": [0, 8]}},
    "a negative shape": {"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}},
    "a text for a shape": {"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}},
    "more than it says": {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
    "beyond the end": {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}},
    "a hole": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
    "something left over": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
    "twice the same place": {**GOOD, "b": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    "metadata that are no texts": {**GOOD, "__metadata__": {"a": 1}},
    "deep": b'{"a":' + b"[" * 100_000,
}


def written(path, header, content=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return path


@pytest.mark.parametrize("case", DAMAGED)
def test_damaged_safetensors_are_refused_as_by_the_library(tmp_path, case):
    path = written(tmp_path / "a.safetensors", DAMAGED[case])
    with pytest.raises(SafetensorError):
        safe_open(path, framework="pt")
    with pytest.raises(InputError, match=f"x: {path} is a damaged or incomplete safetensors file"):
        read_header(path, "x")


def test_a_header_longer_than_the_file(tmp_path):
    (tmp_path / "a.safetensors").write_bytes((10**15).to_bytes(8, "little") + b"{}")
    with pytest.raises(InputError, match="damaged or incomplete"):
        read_header(tmp_path / "a.safetensors", "x")


def test_every_dtype_is_told_as_the_library_tells_it(tmp_path):
    tensors = {name: torch.zeros(2, 3).to(getattr(torch, dtype)) for name, (dtype, _) in SAFETENSORS_DTYPES.items()}
    save_file(tensors, tmp_path / "a.safetensors", {"a": "b"})
    header = read_header(tmp_path / "a.safetensors", "x")
    assert header.metadata == {"a": "b"}
    for name, tensor in tensors.items():
        stored = header.tensors[name]
        assert (getattr(torch, stored.dtype), stored.shape, stored.size) == (tensor.dtype, (2, 3), tensor.nbytes)


def test_a_file_that_changes_after_it_was_opened_is_not_read(tmp_path):
    write_gguf(tmp_path / "a.gguf", {"a.weight": torch.ones(4, 256)}, "Q8_0")
    tensors = open_tensors(tmp_path / "a.gguf", "x")
    write_gguf(tmp_path / "a.gguf", {"a.weight": torch.ones(8, 256)}, "Q8_0")
    with pytest.raises(InputError, match="was changed after it had been opened"):
        tensors["a.weight"]


def test_inspecting_imports_no_pytorch(tmp_path):
    weights = {"decoder.middle.0.residual.0.gamma": torch.ones(4), "a.weight": torch.ones(32, 256)}
    save_file(*comfy_quant(weights)[:1], tmp_path / "a.safetensors")
    write_gguf(tmp_path / "a.gguf", weights, "Q8_0")
    lora = {"diffusion_model.blocks.0.ffn.0.lora_up.weight": torch.ones(4, 2)}
    lora["diffusion_model.blocks.0.ffn.0.lora_down.weight"] = torch.ones(2, 4)
    save_file(lora, tmp_path / "lora.safetensors")
    code = (
        "import sys; from infinitetalk.pipeline.commands.main import main\n"
        "main(['inspect', 'a.safetensors', 'a.gguf', 'lora.safetensors']); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "fp8 e4m3" in done.stdout and "GGUF Q8_0" in done.stdout and "a LoRA" in done.stdout
