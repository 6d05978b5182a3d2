"""Numbers that are not numbers stop a run: what is finished is kept, and the reason is looked for."""

import shutil
from functools import partial

import av
import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.job.output import partial_path
from infinitetalk.pipeline.lora import open_loras
from infinitetalk.pipeline.media.writer import Written
from infinitetalk.pipeline.models.text.cache import Embeddings, encode_prompts, not_cached
from infinitetalk.pipeline.models.vae.model import WanVAE
from infinitetalk.pipeline.run.resume import RunState, load_state, save_state
from infinitetalk.pipeline.run.streaming import Streamer
from safetensors.torch import load_file, save_file

NAN = float("nan")


def spoilt(monkeypatch, owner, name, window, value=NAN):
    """Have what a method returns, or yields, from its call of that number on, hold one number that is none."""
    real, calls = getattr(owner, name), []

    def spoil(tensor):
        tensor = tensor.contiguous().clone()
        tensor.view(-1)[7] = value
        return tensor

    def method(self, *args):
        calls.append(1)
        made = real(self, *args)
        if len(calls) <= window:
            return made
        return spoil(made) if isinstance(made, torch.Tensor) else (spoil(piece) for piece in made)

    monkeypatch.setattr(owner, name, method)


@pytest.mark.parametrize(
    ("owner", "name", "value"),
    [(Streamer, "_denoise", float("inf")), (WanVAE, "decode_frames", NAN)],
)
def test_a_window_that_is_not_finite_stops_the_run_and_keeps_those_before(
    command, tmp_path, capsys, monkeypatch, owner, name, value
):
    with monkeypatch.context() as patch:
        spoilt(patch, owner, name, 1, value)
        assert command() == 2
    told = capsys.readouterr().err
    assert "Window 2 holds numbers that are not finite" in told and "No loaded file holds NaN" in told
    path = tmp_path / "out" / "video.mp4"
    assert not path.exists() and load_state(path).windows == 1
    with av.open(str(partial_path(path))) as container:
        assert sum(1 for _ in container.decode(video=0)) == 17
    assert command(resume=True) == 0
    assert path.exists()


def test_the_file_that_holds_nan_is_named(command, capsys, tmp_path, weights):
    folder = tmp_path / "spoilt"
    shutil.copytree(weights.ckpt_dir, folder)
    name = "blocks.0.ffn.0.weight"
    (shard,) = (file for file in folder.glob("diffusion_pytorch_model*.safetensors") if name in load_file(file))
    tensors = load_file(shard)
    tensors[name][0, 0] = NAN
    save_file(tensors, shard)
    assert command(ckpt_dir=folder) == 2
    told = capsys.readouterr().err
    assert str(folder) in told and name in told and "is not finite" in told
    assert not partial_path(tmp_path / "out" / "video.mp4").exists()


@pytest.mark.parametrize("mode", ["delta", "branch"])
@pytest.mark.parametrize("number", [NAN, float("inf")])
def test_a_lora_that_is_not_finite_is_refused_by_name(tmp_path, mode, number):
    name, shape = "blocks.0.ffn.0.weight", (8, 6)
    for file, value in (("good", 1.0), ("bad", number)):
        pair = {"lora_A.weight": torch.full((2, 6), value), "lora_B.weight": torch.ones(8, 2)}
        pair = {f"diffusion_model.blocks.0.ffn.0.{key}": tensor for key, tensor in pair.items()}
        save_file(pair, tmp_path / f"{file}.safetensors")
    device = torch.device("cpu")
    for files, refused in ((["good"], False), (["good", "bad"], True)):
        loras = open_loras(
            [tmp_path / f"{file}.safetensors" for file in files], [1.0] * len(files), {name: shape}, False
        )
        change = loras.delta if mode == "delta" else partial(loras.branch, dtype=torch.float32)
        if not refused:
            change(name, device)
            continue
        with pytest.raises(
            InputError, match="bad.safetensors at 1 adds to blocks.0.ffn.0.weight is not finite"
        ) as error:
            change(name, device)
        assert "good.safetensors" not in str(error.value)


@pytest.mark.parametrize(
    "stored",
    [
        torch.full((3, 4), NAN),
        torch.zeros(3, 5),
        torch.zeros(12),
        torch.zeros(0, 4),
        torch.zeros(513, 4),
        torch.zeros(3, 4, dtype=torch.float16),
        torch.zeros(3, 4, dtype=torch.int32),
    ],
    ids=lambda tensor: f"{list(tensor.shape)} {tensor.dtype}",
)
def test_a_cached_embedding_of_another_kind_is_made_anew(tmp_path, stored):
    class Encoder:
        def encode(self, prompts):
            return [torch.ones(3, 4) for _ in prompts]

    expected = Embeddings(4, torch.float32)
    encode_prompts(["p"], Encoder, "model", tmp_path, expected)
    assert not_cached(["p"], "model", tmp_path, expected) == []
    (file,) = tmp_path.iterdir()
    save_file({"embedding": stored}, file)
    assert not_cached(["p"], "model", tmp_path, expected) == ["p"]
    assert torch.equal(encode_prompts(["p"], Encoder, "model", tmp_path, expected)[0], torch.ones(3, 4))
    assert not_cached(["p"], "model", tmp_path, expected) == []


def test_motion_frames_in_a_state_that_are_not_finite_are_damage(tmp_path):
    path = tmp_path / "video.mp4"
    for value in (0.0, NAN):
        save_state(path, RunState({}, 1, Written(17, 9, "0"), torch.full((3, 5, 8, 8), value)))
        if value == 0:
            assert load_state(path).windows == 1
    with pytest.raises(InputError, match="is damaged"):
        load_state(path)
