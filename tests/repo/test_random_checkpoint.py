"""The small random checkpoint: laid out as published, deterministic, readable by stock classes, alive and stable."""

import json
from pathlib import Path

import pytest
import sentencepiece
import torch
from infinitetalk.pipeline.checkpoints.lookup import find_text_files
from infinitetalk.pipeline.models.image_encoder import load_image_encoder
from infinitetalk.pipeline.models.speech_encoder import load_speech_encoder
from infinitetalk.pipeline.models.text.encoder import load_text_encoder
from infinitetalk.pipeline.models.transformer.attention import choose_attention
from infinitetalk.pipeline.models.transformer.block import Operations
from infinitetalk.pipeline.models.transformer.blocks import TransformerBlocks
from infinitetalk.pipeline.models.transformer.files import open_transformer
from infinitetalk.pipeline.models.transformer.loading import load_transformer
from infinitetalk.pipeline.models.transformer.matrices import StorageRequest, plan_weights
from infinitetalk.pipeline.models.transformer.model import Context
from infinitetalk.pipeline.models.transformer.pointwise import choose_pointwise
from infinitetalk.pipeline.models.vae.model import load_vae
from infinitetalk.tests.support import other_layouts
from infinitetalk.tests.support.random_checkpoint import (
    CLIP_FILE,
    T5_FILE,
    TINY,
    TOKENIZER_DIR,
    VAE_FILE,
    image_encoder_weights,
    speech_encoder_weights,
    text_encoder_weights,
    transformer_weights,
    vae_weights,
    write,
)
from infinitetalk.tests.support.random_tokenizer import hugging_face_tokenizer, train_sentencepiece
from safetensors import safe_open
from safetensors.torch import save_file

PROMPT, OTHER_WORD = "A cat is talking to the camera.", "A dog is talking to the camera."


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write(tmp_path_factory.mktemp("checkpoint"), TINY)


@pytest.fixture(scope="module")
def vocabulary():
    return sentencepiece.SentencePieceProcessor(model_proto=train_sentencepiece()).vocab_size()


def test_layout_is_the_published_one(checkpoint):
    base = checkpoint.ckpt_dir
    files = {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()}
    assert files == {
        "config.json",
        "diffusion_pytorch_model.safetensors.index.json",
        *(f"diffusion_pytorch_model-0000{k}-of-00007.safetensors" for k in range(1, 8)),
        "models_t5_umt5-xxl-enc-bf16.pth",
        "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        "Wan2.1_VAE.pth",
        *(f"google/umt5-xxl/{name}" for name in ("spiece.model", "tokenizer.json", "tokenizer_config.json")),
        "google/umt5-xxl/special_tokens_map.json",
    }
    assert {path.name for path in checkpoint.wav2vec_dir.iterdir()} == {
        "config.json",
        "preprocessor_config.json",
        "pytorch_model.bin",
    }
    weight_map = json.loads((base / "diffusion_pytorch_model.safetensors.index.json").read_text())["weight_map"]
    for shard in base.glob("*.safetensors"):
        with safe_open(shard, "pt") as file:
            assert {name for name, where in weight_map.items() if where == shard.name} == set(file.keys())
    assert set(weight_map) == set(transformer_weights(TINY))


def test_same_seed_same_bytes_other_seed_other_weights(checkpoint, tmp_path):
    again = write(tmp_path / "again", TINY)
    root = checkpoint.ckpt_dir.parent
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".safetensors", ".json", ".model")):
        assert path.read_bytes() == (again.ckpt_dir.parent / path.relative_to(root)).read_bytes(), path.name
    first, other = vae_weights(TINY, 0), vae_weights(TINY, 1)
    assert torch.equal(first["conv1.weight"], vae_weights(TINY, 0)["conv1.weight"])
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize("text", [PROMPT, "一个人对着镜头激情唱歌", " Zebra  ½ über 龍 ", "", "full width ＡＢ"])
def test_both_tokenizer_files_give_the_same_ids(text):
    processor = sentencepiece.SentencePieceProcessor(model_proto=train_sentencepiece())
    assert [processor.pad_id(), processor.eos_id(), processor.unk_id()] == [0, 1, 2]
    ids = processor.encode(text) + [processor.eos_id()]
    assert hugging_face_tokenizer(processor).encode(text).ids == ids
    assert processor.unk_id() not in ids


def test_names_and_shapes_are_those_of_transformers_classes(vocabulary):
    """Hugging Face's own classes take the Hugging Face layouts whole: nothing missing, nothing left over."""
    from transformers import (
        CLIPVisionConfig,
        CLIPVisionModelWithProjection,
        UMT5Config,
        UMT5EncoderModel,
        Wav2Vec2Config,
        Wav2Vec2Model,
    )

    def names_and_shapes(tensors):
        return {name: tuple(tensor.shape) for name, tensor in tensors.items()}

    text = text_encoder_weights(TINY, vocabulary)
    config = UMT5Config(
        vocab_size=len(text["token_embedding.weight"]),
        d_model=TINY.text_dim,
        d_ff=TINY.text_ffn,
        num_layers=TINY.text_layers,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    comfy = names_and_shapes(other_layouts.comfy_text_encoder(text, b"model"))
    assert comfy.pop("spiece_model") == (5,)
    expected = names_and_shapes(UMT5EncoderModel(config).state_dict())
    expected.pop("encoder.embed_tokens.weight", None)  # the same tensor as shared.weight
    assert comfy == expected

    image = names_and_shapes(other_layouts.hugging_face_image_encoder(image_encoder_weights(TINY)))
    config = CLIPVisionConfig(
        hidden_size=80, intermediate_size=320, num_hidden_layers=3, num_attention_heads=1, patch_size=14,
        projection_dim=64,
    )  # fmt: skip
    expected = names_and_shapes(CLIPVisionModelWithProjection(config).state_dict())
    assert image == {name: shape for name, shape in expected.items() if not name.endswith("position_ids")}

    speech = names_and_shapes(speech_encoder_weights(TINY))
    config = Wav2Vec2Config(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=1, intermediate_size=128, conv_dim=[32] * 7,
    )  # fmt: skip
    newer = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    renamed = {}
    for name, shape in speech.items():
        head, _, leaf = name.rpartition(".")
        if name.startswith("wav2vec2."):
            renamed[f"{head.removeprefix('wav2vec2.')}.{newer.get(leaf, leaf)}".removeprefix("wav2vec2.")] = shape
    expected = names_and_shapes(Wav2Vec2Model(config).state_dict())
    assert {name.removeprefix("."): shape for name, shape in renamed.items()} == expected


def test_every_layout_gives_the_same_results(checkpoint, vocabulary, tmp_path):
    """Kijai's and Comfy-Org's single files, cast to float32 so that equal means equal."""
    base, exact = checkpoint.ckpt_dir, torch.float32
    latents = torch.randn(16, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    frames = load_vae(base / VAE_FILE).decode(latents)
    for prefix in ("", "model."):
        save_file(other_layouts.cast(vae_weights(TINY), exact, prefix), tmp_path / "vae.safetensors")
        torch.testing.assert_close(load_vae(tmp_path / "vae.safetensors").decode(latents), frames, rtol=0, atol=0)

    picture = torch.linspace(-1, 1, 3 * 64 * 64).view(3, 64, 64)
    seen = load_image_encoder(base / CLIP_FILE, "cpu", exact).encode(picture)
    save_file(
        other_layouts.hugging_face_image_encoder(image_encoder_weights(TINY), exact), tmp_path / "clip.safetensors"
    )
    again = load_image_encoder(tmp_path / "clip.safetensors", "cpu", exact).encode(picture)
    torch.testing.assert_close(again, seen, rtol=0, atol=0)

    # the published .pth is bfloat16, and so must be its copies
    read = load_text_encoder(find_text_files(base / T5_FILE, None, base), "cpu", exact).encode([PROMPT])[0]
    text = other_layouts.cast(text_encoder_weights(TINY, vocabulary))
    save_file(text, tmp_path / "kijai.safetensors")
    model = (base / TOKENIZER_DIR / "spiece.model").read_bytes()
    save_file(other_layouts.comfy_text_encoder(text, model, torch.bfloat16), tmp_path / "comfy.safetensors")
    for name, ckpt_dir in (("kijai", base), ("comfy", None)):
        files = find_text_files(tmp_path / f"{name}.safetensors", None, ckpt_dir)
        again = load_text_encoder(files, "cpu", exact).encode([PROMPT])[0]
        torch.testing.assert_close(again, read, rtol=0, atol=0)

    speech = torch.sin(torch.arange(16_000) / 20).numpy()
    heard = load_speech_encoder(checkpoint.wav2vec_dir).encode(speech).windows(0, 25)
    save_file(other_layouts.cast(speech_encoder_weights(TINY), exact), tmp_path / "wav2vec.safetensors")
    again = load_speech_encoder(tmp_path / "wav2vec.safetensors").encode(speech).windows(0, 25)
    torch.testing.assert_close(again, heard, rtol=0, atol=0)


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
def test_transformer_in_one_file_equals_shards(checkpoint, tmp_path, prefix):
    single = tmp_path / "base.safetensors"
    save_file(other_layouts.cast(transformer_weights(TINY), torch.float32, prefix), single)
    (tmp_path / "config.json").write_bytes((checkpoint.ckpt_dir / "config.json").read_bytes())
    shards, one = (velocity(_transformer(path, checkpoint.infinitetalk)) for path in (checkpoint.ckpt_dir, single))
    # matrix products may round differently where a memory-mapped weight is aligned differently
    torch.testing.assert_close(one, shards, rtol=0, atol=1e-4)


def _transformer(base: Path, audio: Path):
    cpu = torch.device("cpu")
    blocks = TransformerBlocks(cpu, resident=TINY.layers)
    operations = Operations(choose_attention("sdpa", cpu, torch.float32), choose_pointwise("plain", cpu))
    return load_transformer(
        plan_weights(open_transformer(base, audio), StorageRequest(torch.float32), operations.matmuls),
        operations,
        blocks,
    )


def velocity(model, **changed):
    """One forward pass on 5 latent frames of 8x8; ``changed`` replaces inputs."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator)

    inputs = {
        "latents": random(16, 5, 8, 8),
        "reference": random(20, 5, 8, 8),
        "text": random(12, TINY.text_dim),
        "image": random(257, TINY.clip_dim),
        "audio": random(17, 5, TINY.audio_layers, TINY.audio_hidden),
        **changed,
    }
    context = Context(
        model.encode_text(inputs["text"], model.blocks),
        model.encode_image(inputs["image"], model.blocks),
        model.embed_speech(inputs["audio"]),
    )
    with torch.no_grad():
        return model(inputs["latents"], inputs["reference"], 900.0, [context], model.blocks)[0]


def test_every_input_reaches_the_velocity(checkpoint):
    base = checkpoint.ckpt_dir
    model = _transformer(base, checkpoint.infinitetalk)
    encoder = load_text_encoder(find_text_files(base / T5_FILE, None, base), "cpu", torch.float32)
    text, other_word = encoder.encode([PROMPT, OTHER_WORD])
    plain = velocity(model, text=text)
    assert 0.5 < plain.std() < 2
    for name, value in {
        "text": other_word,
        "audio": torch.zeros(17, 5, TINY.audio_layers, TINY.audio_hidden),
        "image": torch.zeros(257, TINY.clip_dim),
        "reference": torch.zeros(20, 5, 8, 8),
    }.items():
        change = (velocity(model, **{"text": text, name: value}) - plain).std() / plain.std()
        assert change > 0.05, f"{name} changes the velocity by {change:.3f} of its deviation"


def test_pictures_are_neither_grey_nor_saturated(checkpoint):
    vae = load_vae(checkpoint.ckpt_dir / VAE_FILE)
    frames = vae.decode(torch.randn(16, 4, 6, 6, generator=torch.Generator().manual_seed(0)))
    assert 0.2 < frames.std() < 0.6
    assert (frames.abs() == 1).float().mean() < 0.1
    assert 0.3 < vae.encode(frames).std() < 3
