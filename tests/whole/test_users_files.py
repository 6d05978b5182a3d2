"""The whole way with files as users have them: the guide's command, the presets, LoRAs in effect, convert, inspect."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from infinitetalk.pipeline import Generator, Job, Settings
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.models.transformer.attention import choose_attention
from infinitetalk.pipeline.models.transformer.block import Operations
from infinitetalk.pipeline.models.transformer.blocks import TransformerBlocks
from infinitetalk.pipeline.models.transformer.files import open_transformer
from infinitetalk.pipeline.models.transformer.loading import load_transformer
from infinitetalk.pipeline.models.transformer.matrices import StorageRequest, plan_weights
from infinitetalk.pipeline.models.transformer.pointwise import choose_pointwise
from infinitetalk.pipeline.settings.presets import preset_names
from infinitetalk.tests.support import lora_files, random_checkpoint
from infinitetalk.tests.support.gguf_files import write_gguf
from infinitetalk.tests.support.guide import FUSIONX, GUIDE, LIGHTX2V
from infinitetalk.tests.support.other_layouts import (
    cast,
    comfy_quant,
    hugging_face_image_encoder,
    old_scaled_fp8,
    quanto,
)
from infinitetalk.tests.support.places import PORTRAIT
from infinitetalk.tests.support.random_checkpoint import TINY, infinitetalk_weights, transformer_weights
from safetensors.torch import save_file

pytestmark = pytest.mark.usefixtures("own_cache")

QUANTISED = "InfiniteTalk/quant_models/infinitetalk_single_fp8.safetensors"
BASE = "weights/Wan2.1-I2V-14B-480P"
FLAGS = [*("--ckpt_dir", BASE), *("--wav2vec_dir", "weights/chinese-wav2vec2-base")]
FLAGS += ["--infinitetalk_dir", "weights/InfiniteTalk/single/infinitetalk.safetensors"]
# instead of 640x640 and windows of 81 frames, which take a CPU minutes
QUICK = ["--size", "64x64", "--frame_num", "17", "--max_frame_num", "17", "--device", "cpu"]


def lightx2v():
    return lora_files.lightx2v_i2v(TINY, rank=8)


@pytest.fixture(scope="module")
def users_folder(tmp_path_factory, speech):
    """The guide's folder: small checkpoints under ``weights`` in all the places that it names."""
    folder = tmp_path_factory.mktemp("users")
    weights = folder / "weights"
    random_checkpoint.write(weights, TINY)
    save_file(lightx2v(), weights / LIGHTX2V)
    save_file(lora_files.fusionx(TINY), weights / FUSIONX)
    quantised = weights / QUANTISED
    quantised.parent.mkdir(parents=True)
    tensors, layers = quanto(transformer_weights(TINY) | infinitetalk_weights(TINY), "fp8")
    save_file(tensors, quantised)
    quantised.with_suffix(".json").write_text(json.dumps(layers))
    shutil.copy(weights / random_checkpoint.BASE_DIR / "config.json", quantised.parent)
    (folder / "examples").mkdir()
    shutil.copy(PORTRAIT, folder / "examples" / "ref_image.png")
    shutil.copy(speech, folder / "examples" / "1.wav")
    entry = {"prompt": "A woman.", "cond_video": "ref_image.png", "cond_audio": {"person1": "1.wav"}}
    (folder / "examples" / "single_example_image.json").write_text(json.dumps(entry))
    return folder


@pytest.fixture
def folder(users_folder, monkeypatch):
    monkeypatch.chdir(users_folder)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return users_folder


def job(folder):
    examples = folder / "examples"
    return Job(examples / "ref_image.png", examples / "1.wav", "A woman.")


def frames(folder, **changes):
    """One window of the guide's settings, at 64x64."""
    settings = {
        "ckpt_dir": folder / BASE,
        "wav2vec_dir": folder / "weights/chinese-wav2vec2-base",
        "infinitetalk_dir": folder / "weights/InfiniteTalk/single/infinitetalk.safetensors",
        "size": "64x64",
        "frame_num": 17,
        "max_frame_num": 17,
        "sample_steps": 4,
        "sample_shift": 11.0,
        "sample_text_guide_scale": 1.0,
        "sample_audio_guide_scale": 2.0,
        "device": "cpu",
    }
    windows = Generator(Settings(**{**settings, **changes})).windows(job(folder))
    return torch.cat([window.frames for window in windows]).float()


def difference(a, b):
    """Mean change of a pixel, as a part of the range."""
    return ((a - b).abs().mean() / 255).item()


def test_the_guides_whole_command_runs_with_its_lora(folder, capsys):
    """As it stands in the guide, down to the size; then at a size at which frames can be compared."""
    assert main([*GUIDE.split(), *QUICK]) == 0
    out, err = capsys.readouterr()
    assert out == "output_fast.mp4\n" and (folder / "output_fast.mp4").stat().st_size > 1000
    assert f"LoRA {LIGHTX2V} at 0.8 changes" in err and "modulations" in err
    assert "matrices of the blocks: " in err and " in fp8 e4m3" in err
    assert "the CPU has no fast products of fp8 e4m3: weights are read back for each product" in err
    assert main([*GUIDE.split(), "--dry_run", "--overwrite"]) == 0
    assert "640x640" in capsys.readouterr().out


def test_the_guides_lora_is_in_effect_under_fp8(folder):
    quantised = {
        "quant": "fp8",
        "quant_dir": folder / "weights" / QUANTISED,
        "lora_dir": (folder / "weights" / LIGHTX2V,),
    }
    found = frames(folder, **quantised, lora_scale=(0.8,))
    without, doubled = frames(folder, **quantised, lora_scale=(0.0,)), frames(folder, **quantised, lora_scale=(1.6,))
    expected = fused_reference(folder)
    assert difference(found, without) > 0.02
    assert difference(found, expected) < 0.5 * difference(found, without)
    assert difference(found, expected) < 0.5 * difference(found, doubled)


def fused_reference(folder):
    """Frames of a plain checkpoint with the LoRA's changes added to its weights by the plain formulas."""
    modules = lora_files.IN_BLOCKS + r"|^(text_embedding|time_embedding|time_projection|img_emb|head)\."
    layers = lora_files.random_layers(
        TINY, 8, modules, without=r"audio|norm_x", biases=True, norms=True, modulations=True, seed=1
    )
    rounded = {name: replace(layer, **_in_bf16(layer)) for name, layer in layers.items()}
    weights = lora_files.applied(transformer_weights(TINY) | infinitetalk_weights(TINY), rounded, 0.8)
    path = folder / "weights" / "fused.safetensors"
    save_file(weights, path)
    shutil.copy(folder / BASE / "config.json", path.parent)
    return frames(folder, dit_path=path)


def _in_bf16(layer):
    names = ("up", "down", "weight", "bias", "modulation")
    return {name: getattr(layer, name).bfloat16() for name in names if getattr(layer, name) is not None}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_runs(folder, capsys, name):
    """Its LoRA and quantised file are found under the weights' folder."""
    words = ["--preset", name, *FLAGS, *QUICK, "--sample_solver", "euler", "--sample_steps", "2", "--overwrite"]
    words += ["--image", "examples/ref_image.png", "--audio", "examples/1.wav", "--prompt", "p", "--save_file", name]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert out == f"{name}.mp4\n"
    lora = {"03_balanced": FUSIONX, "04_high_quality": None}.get(name, LIGHTX2V)
    assert ("LoRA " in err) == (lora is not None) and (lora is None or f"LoRA {lora} at" in err)
    assert ("fp8 e4m3" in err) == (lora is not None)


def test_a_presets_files_that_are_missing_are_named_with_what_to_do(folder, tmp_path, capsys):
    shutil.copytree(folder / "weights", tmp_path / "weights")
    base = [word.replace("weights/", f"{tmp_path}/weights/") for word in FLAGS]
    words = ["--preset", "02_comfyui_equivalent", *base, *QUICK, "--save_file", str(tmp_path / "x")]
    words += ["--image", "examples/ref_image.png", "--audio", "examples/1.wav", "--prompt", "p"]
    (tmp_path / "weights" / LIGHTX2V).rename(tmp_path / "elsewhere")
    monkey = Path("weights").rename("hidden")
    try:
        assert main(words) == 2
        assert f"--lora_dir: {LIGHTX2V} does not exist, nor is it in {tmp_path / 'weights'}" in capsys.readouterr().err
        (tmp_path / "weights" / QUANTISED).unlink()
        assert main(words) == 2
        sentence = capsys.readouterr().err
        assert f"--quant_dir: {QUANTISED}" in sentence and f"--lora_dir: {LIGHTX2V}" in sentence
        assert "All of them: infinitetalk download --preset 02_comfyui_equivalent" in sentence
        (tmp_path / "elsewhere").rename(tmp_path / "weights" / LIGHTX2V)
        assert main(words) == 2
        sentence = capsys.readouterr().err
        assert f"--quant_dir: {QUANTISED} does not exist" in sentence and "--quant_dir none" in sentence
    finally:
        monkey.rename("weights")


def state(tensors, request):
    """All that a transformer keeps, loaded from these tensors."""
    device = torch.device("cpu")
    operations = Operations(choose_attention("sdpa", device, request.dtype), choose_pointwise("plain", device))
    weights = plan_weights(tensors, request, operations.matmuls)
    return load_transformer(weights, operations, TransformerBlocks(device, resident=99)).state_dict()


def test_multitalk_in_infinitetalks_place_is_a_warning(folder, tmp_path, capsys):
    path = tmp_path / "multitalk.safetensors"
    save_file(infinitetalk_weights(TINY), path)
    words = [*FLAGS[:4], "--infinitetalk_dir", str(path), *QUICK, "--dry_run", "--image", "examples/ref_image.png"]
    assert main([*words, "--audio", "examples/1.wav", "--prompt", "p"]) == 0
    assert f"{path} is MultiTalk's by its name, not InfiniteTalk's" in capsys.readouterr().out


LORA = "diffusion_model.blocks.{}.ffn.0.lora_{}.weight"


@pytest.mark.parametrize(
    ("tensors", "sentence"),
    [
        (lambda: {**lightx2v(), LORA.format(7, "up"): torch.ones(256, 2), LORA.format(7, "down"): torch.ones(2, 128)},
         "keys with no place in this transformer"),
        (lambda: {f"lora_unet_double_blocks_0_img.lora_{x}.weight": torch.ones(4, 4) for x in ("up", "down")},
         "was made for another model (it looks like one for Flux or HunyuanVideo)"),
        (lambda: {LORA.format(0, "up"): torch.ones(1536, 2), LORA.format(0, "down"): torch.ones(2, 128)},
         "it was made for Wan 2.1 1.3B"),
    ],
    ids=["in part", "another model", "the small Wan"],
)  # fmt: skip
def test_loras_that_do_not_fit_are_refused_by_the_command(folder, tmp_path, capsys, tensors, sentence):
    path = tmp_path / "lora.safetensors"
    save_file(tensors(), path)
    words = [*FLAGS, *QUICK, "--image", "examples/ref_image.png", "--audio", "examples/1.wav", "--prompt", "p"]
    assert main([*words, "--lora_dir", str(path), "--save_file", str(tmp_path / "x")]) == 2
    told = capsys.readouterr().err
    assert f"--lora_dir: {path}" in told and sentence in told and told.count("error: ") == 1


class TestConvert:
    @pytest.mark.parametrize(
        ("quant", "lora"),
        [
            ("fp8", True),
            *(
                pytest.param(*case, marks=pytest.mark.long)
                for case in (("int8", False), ("fp8", False), ("int8", True))
            ),
        ],
    )
    def test_a_converted_file_gives_the_frames_of_quantising_while_loading(self, folder, capsys, quant, lora):
        words = [*FLAGS, "--quant", quant, "--save_file", f"mine_{quant}", "--overwrite", "--device", "cpu"]
        changes = {}
        if lora:
            words += ["--lora_dir", f"weights/{LIGHTX2V}", "--lora_scale", "0.8"]
            changes = {"lora_dir": (folder / "weights" / LIGHTX2V,), "lora_scale": (0.8,)}
        assert main(["convert", *words]) == 0
        out, err = capsys.readouterr()
        path = folder / f"mine_{quant}.safetensors"
        assert out == f"mine_{quant}.safetensors\n" and "block" in err
        # matrices in 8 bits, the rest in bf16 and float32
        plain = sum(t.numel() for t in (transformer_weights(TINY) | infinitetalk_weights(TINY)).values())
        assert path.stat().st_size < 3 * plain
        loaded = frames(folder, quant=quant, **changes)
        direct, as_quantised = (
            frames(folder, dit_path=path, infinitetalk_dir=None),
            frames(folder, quant=quant, quant_dir=path),
        )
        assert torch.equal(direct, as_quantised)
        # what is not a matrix is bf16 in the file and float32 on a CPU that quantises while loading
        assert difference(direct, loaded) < 0.02
        if lora:
            assert difference(direct, loaded) < 0.2 * difference(direct, frames(folder, quant=quant))

    @pytest.mark.parametrize("quant", [pytest.param("fp8", marks=pytest.mark.long), "int8"])
    def test_in_bf16_it_holds_bit_for_bit_what_is_kept_when_quantising_while_loading(self, folder, quant):
        words = [*FLAGS, "--quant", quant, "--save_file", f"exact_{quant}", "--overwrite", "--device", "cpu", "--quiet"]
        assert main(["convert", *words]) == 0
        path = folder / f"exact_{quant}.safetensors"
        audio = folder / "weights/InfiniteTalk/single/infinitetalk.safetensors"
        converted = state(open_transformer(path, None), StorageRequest(torch.bfloat16))
        loaded = state(open_transformer(folder / BASE, audio), StorageRequest(torch.bfloat16, quant))
        assert set(converted) == set(loaded)
        for name, tensor in loaded.items():
            found = converted[name]
            assert found.dtype == tensor.dtype and torch.equal(found.view(torch.uint8), tensor.view(torch.uint8)), name
        # the CPU's bf16 products may round otherwise for tensors that lie elsewhere in memory
        frames_converted = frames(folder, dit_path=path, infinitetalk_dir=None, dtype="bf16")
        assert difference(frames_converted, frames(folder, quant=quant, dtype="bf16")) < 0.005

    @pytest.mark.parametrize("quant", ["fp8", "int8"])
    def test_what_is_inside_is_told(self, folder, quant, capsys):
        words = [*FLAGS, "--lora_dir", f"weights/{FUSIONX}", "--lora_scale", "0.6", "--quant", quant, "--quiet"]
        assert main(["convert", *words, "--save_file", "told", "--overwrite"]) == 0
        capsys.readouterr()
        assert main(["inspect", "told.safetensors"]) == 0
        told = capsys.readouterr().out
        assert "with InfiniteTalk's audio layers inside" in told and quant in told and f"{FUSIONX} (0.6)" in told
        again = ["--dit_path", "told.safetensors", *FLAGS[:4], *QUICK, "--dry_run", "--image", "examples/ref_image.png"]
        again += ["--audio", "examples/1.wav", "--prompt", "p", "--lora_dir", FUSIONX, "--lora_scale", "0.1"]
        assert main(again) == 0
        told = capsys.readouterr().out
        assert f"holds fused LoRAs already: {FUSIONX} (0.6) and gets what --lora_dir gives on top" in told
        assert main([*again, *FLAGS[4:]]) == 0
        assert "told.safetensors holds audio layers too, but those of --infinitetalk_dir are used" in (
            capsys.readouterr().out
        )


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "give --quant fp8 or --quant int8"),
        (["--quant", "fp8"], "give --save_file"),
        (["--quant", "fp8", "--save_file", "x", "--lora_mode", "side"], "leave --lora_mode side out"),
        (["--quant", "fp8", "--save_file", f"weights/{LIGHTX2V}"], "exists"),
    ],
)
def test_what_cannot_be_converted(folder, capsys, words, sentence):
    assert main(["convert", *FLAGS, *words]) == 2
    assert sentence in capsys.readouterr().err


class TestInspect:
    """Every kind of file is told by its content, under any name."""

    KINDS = {
        "transformer": (lambda: transformer_weights(TINY), "a Wan 2.1 image-to-video transformer", "--dit_path"),
        "everything in scaled fp8": (
            lambda: old_scaled_fp8(transformer_weights(TINY) | infinitetalk_weights(TINY)),
            "with InfiniteTalk's audio layers inside",
            "fp8 e4m3",
        ),
        "prefixed, mixed": (
            lambda: comfy_quant(transformer_weights(TINY), prefix="model.diffusion_model.")[0],
            "a Wan 2.1 image-to-video transformer",
            "2 blocks of width 128",
        ),
        "text to video": (
            lambda: {name: t for name, t in transformer_weights(TINY).items() if "img" not in name},
            "a Wan text-to-video transformer",
            "it has no image cross-attention",
        ),
        "audio": (
            lambda: infinitetalk_weights(TINY),
            "InfiniteTalk's audio layers (or MultiTalk's",
            "--infinitetalk_dir",
        ),
        "umT5": (
            lambda: cast(random_checkpoint.text_encoder_weights(TINY, 64)),
            "a umT5 text encoder",
            "--text_encoder",
        ),
        "CLIP": (
            lambda: random_checkpoint.image_encoder_weights(TINY),
            "a CLIP image encoder (open-clip",
            "--clip_vision",
        ),
        "CLIP of Comfy-Org": (
            lambda: hugging_face_image_encoder(random_checkpoint.image_encoder_weights(TINY)),
            "a CLIP image encoder (Hugging Face",
            "fp16",
        ),
        "VAE": (lambda: random_checkpoint.vae_weights(TINY), "a Wan VAE", "--vae"),
        "wav2vec2": (
            lambda: random_checkpoint.speech_encoder_weights(TINY),
            "a wav2vec2 speech encoder",
            "--wav2vec_dir",
        ),
        "LoRA": (lightx2v, "a LoRA", "8 ("),
        "LoKr": (lambda: {"blocks.0.ffn.0.lokr_w1": torch.ones(2, 2)}, "an adapter", "LoKr"),
        "nothing": (lambda: {"x": torch.ones(1)}, "nothing that is used here", "it holds x"),
        "diffusers": (
            lambda: {"condition_embedder.time_proj.weight": torch.ones(1)},
            "in the layout of diffusers",
            "refused",
        ),
        "without scales": (
            lambda: {n: t for n, t in old_scaled_fp8(transformer_weights(TINY)).items() if "scale_w" not in n},
            "refused",
            "lacks the scales of",
        ),
    }

    @pytest.mark.parametrize("kind", KINDS)
    def test_safetensors(self, tmp_path, capsys, kind):
        make, *words = self.KINDS[kind]
        save_file({n: t.contiguous() for n, t in make().items()}, tmp_path / "file.safetensors")
        assert main(["inspect", str(tmp_path / "file.safetensors")]) == 0
        told = capsys.readouterr().out
        assert all(word in told for word in words), told

    def test_other_containers(self, folder, tmp_path, capsys):
        """A folder of shards, GGUF, .pth, and quanto with its map, in one call."""
        write_gguf(tmp_path / "base.gguf", transformer_weights(TINY), "Q8_0")
        base = Path(BASE)
        words = [BASE, str(tmp_path / "base.gguf"), str(base / random_checkpoint.T5_FILE), f"weights/{QUANTISED}"]
        assert main(["inspect", *words]) == 0
        shards, gguf, t5, quantised = capsys.readouterr().out.split("\n\n")
        assert "a Wan 2.1 image-to-video transformer" in shards and "100 % fp32" in shards
        assert "GGUF Q8_0" in gguf and "umT5" in t5 and "100 % bf16" in t5
        assert "InfiniteTalk's audio layers inside" in quantised and "fp8 e4m3" in quantised

    @pytest.mark.parametrize("words", [[], ["--full"], ["nowhere.safetensors"]])
    def test_how_to_ask_is_said(self, folder, capsys, words):
        assert main(["inspect", *words]) == 2
        assert "inspect: " in capsys.readouterr().err
