"""Writes a small random checkpoint in the real on-disk layout, for the demo and the tests.

``python -m infinitetalk.tests.support.random_checkpoint OUT`` makes the folders that ``hf download`` makes:
``Wan2.1-I2V-14B-480P``, ``InfiniteTalk`` and ``chinese-wav2vec2-base``. Names and shapes are tables
written from the published files, not taken from the engine's model classes, so that loading such a
checkpoint checks the loaders. The weights are scaled so that every input reaches the picture and
nothing saturates. Does not know how a video is made from them.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from .random_tokenizer import write_json, write_tokenizer

BASE_DIR = "Wan2.1-I2V-14B-480P"
INFINITETALK_FILE = "InfiniteTalk/single/infinitetalk.safetensors"
WAV2VEC_DIR = "chinese-wav2vec2-base"
T5_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
CLIP_FILE = "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"
VAE_FILE = "Wan2.1_VAE.pth"
TOKENIZER_DIR = "google/umt5-xxl"
SHARDS = 7

LATENT_CHANNELS = 16
IN_CHANNELS = 36  # noise 16, mask 4, reference latents 16
PATCH = (1, 2, 2)
T5_HEAD = 64
CLIP_HEAD = 80
CLIP_IMAGE, CLIP_PATCH = 224, 14
WAV2VEC_KERNELS = (10, 3, 3, 3, 3, 2, 2)
WAV2VEC_STRIDES = (5, 2, 2, 2, 2, 2, 2)

AFTER_ACTIVATION = 1.5  # GELU and SiLU let about 0.6 of a unit deviation through
MODULATION = 0.4  # gates, scales and shifts; zero gates would switch the blocks off
TEXT_QUERY, TEXT_KEY = 1.5, 2.0  # few words compete with 500 padding tokens: sharper attention
AUDIO_OUT = 1.5
PIXEL_DEVIATION = 0.6  # gives frames a standard deviation of about 0.35 of [-1, 1]


@dataclass(frozen=True)
class Sizes:
    """Widths and depths; heads follow from the published head sizes (T5 64, CLIP 80, wav2vec2 64)."""

    dim: int = 128
    heads: int = 2
    layers: int = 2
    ffn: int = 256
    freq_dim: int = 256
    text_dim: int = 64
    text_attn: int = 128
    text_ffn: int = 128
    text_layers: int = 2
    clip_dim: int = 80
    clip_layers: int = 3
    audio_hidden: int = 64
    audio_layers: int = 2
    audio_ffn: int = 128
    audio_conv: int = 32
    audio_tokens: int = 8
    audio_token_dim: int = 64
    audio_intermediate: int = 64
    vae_dim: int = 8


TINY = Sizes()
DEMO = Sizes(dim=256, heads=4, layers=3, ffn=512, clip_dim=160)


@dataclass(frozen=True)
class Paths:
    """Where the parts of a written checkpoint are: the values of the command line's three flags."""

    ckpt_dir: Path
    infinitetalk: Path
    wav2vec_dir: Path


@dataclass(frozen=True)
class Spec:
    """How one tensor is drawn: normal with this mean and standard deviation."""

    shape: tuple[int, ...]
    std: float
    mean: float = 0.0


Table = dict[str, Spec]
Weights = dict[str, torch.Tensor]


def write(out: Path, sizes: Sizes = DEMO, seed: int = 0) -> Paths:
    """Write the whole checkpoint under ``out`` (some megabytes; existing files are replaced)."""
    base = out / BASE_DIR
    paths = Paths(base, out / INFINITETALK_FILE, out / WAV2VEC_DIR)
    paths.infinitetalk.parent.mkdir(parents=True, exist_ok=True)
    paths.wav2vec_dir.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(base / TOKENIZER_DIR)

    write_json(base / "config.json", transformer_config(sizes))
    write_shards(transformer_weights(sizes, seed), base)
    save_file(infinitetalk_weights(sizes, seed), paths.infinitetalk)
    t5 = text_encoder_weights(sizes, vocabulary, seed)
    torch.save({name: tensor.bfloat16() for name, tensor in t5.items()}, base / T5_FILE)
    torch.save(image_encoder_weights(sizes, seed), base / CLIP_FILE)
    torch.save(vae_weights(sizes, seed), base / VAE_FILE)
    write_json(paths.wav2vec_dir / "config.json", speech_encoder_config(sizes))
    write_json(paths.wav2vec_dir / "preprocessor_config.json", SPEECH_PREPROCESSOR)
    torch.save(speech_encoder_weights(sizes, seed), paths.wav2vec_dir / "pytorch_model.bin")
    return paths


def transformer_weights(sizes: Sizes, seed: int = 0) -> Weights:
    """The base model, named as in Wan's official shards, float32."""
    return _draw(transformer_table(sizes), seed, 1)


def infinitetalk_weights(sizes: Sizes, seed: int = 0) -> Weights:
    """The audio layers, named as in ``infinitetalk.safetensors``, float32."""
    return _draw(infinitetalk_table(sizes), seed, 2)


def text_encoder_weights(sizes: Sizes, vocabulary: int, seed: int = 0) -> Weights:
    """umT5's encoder under Wan's names, float32 (the published file is bfloat16)."""
    return _draw(text_encoder_table(sizes, vocabulary), seed, 3)


def image_encoder_weights(sizes: Sizes, seed: int = 0) -> Weights:
    """CLIP under open-clip's names as Wan publishes them, with a few of the text tower's tensors."""
    return _draw(image_encoder_table(sizes), seed, 4)


def vae_weights(sizes: Sizes, seed: int = 0) -> Weights:
    """The Wan 2.1 VAE, float32."""
    return _draw(vae_table(sizes), seed, 5)


def speech_encoder_weights(sizes: Sizes, seed: int = 0) -> Weights:
    """wav2vec2 as ``pytorch_model.bin`` of a pre-training checkpoint holds it."""
    return _draw(speech_encoder_table(sizes), seed, 6)


def _draw(table: Table, seed: int, part: int) -> Weights:
    generator = torch.Generator().manual_seed(1000 * seed + part)
    return {
        name: torch.empty(spec.shape).normal_(spec.mean, spec.std, generator=generator) for name, spec in table.items()
    }


def _dense(*shape: int, gain: float = 1.0) -> Spec:
    """A linear or convolution kernel [out, in, ...]: unit input gives ``gain`` at the output."""
    return Spec(shape, gain / math.sqrt(math.prod(shape[1:])))


def _linear(name: str, out: int, into: int, gain: float = 1.0) -> Table:
    return {f"{name}.weight": _dense(out, into, gain=gain), f"{name}.bias": Spec((out,), 0.02)}


def _norm(name: str, width: int) -> Table:
    return {f"{name}.weight": Spec((width,), 0.05, 1.0), f"{name}.bias": Spec((width,), 0.05)}


def transformer_config(sizes: Sizes) -> dict:
    """``config.json`` with the keys that Wan publishes."""
    return {
        "_class_name": "WanModel",
        "_diffusers_version": "0.30.0",
        "dim": sizes.dim,
        "eps": 1e-06,
        "ffn_dim": sizes.ffn,
        "freq_dim": sizes.freq_dim,
        "in_dim": IN_CHANNELS,
        "model_type": "i2v",
        "num_heads": sizes.heads,
        "num_layers": sizes.layers,
        "out_dim": LATENT_CHANNELS,
        "text_len": 512,
    }


def transformer_table(sizes: Sizes) -> Table:
    dim, clip = sizes.dim, sizes.clip_dim
    table: Table = {
        "patch_embedding.weight": _dense(dim, IN_CHANNELS, *PATCH),
        "patch_embedding.bias": Spec((dim,), 0.02),
        "head.modulation": Spec((1, 2, dim), MODULATION),
        **_linear("head.head", math.prod(PATCH) * LATENT_CHANNELS, dim),
        **_linear("text_embedding.0", dim, sizes.text_dim),
        **_linear("text_embedding.2", dim, dim, AFTER_ACTIVATION),
        **_linear("time_embedding.0", dim, sizes.freq_dim),
        **_linear("time_embedding.2", dim, dim, AFTER_ACTIVATION),
        **_linear("time_projection.1", 6 * dim, dim, MODULATION),
        **_norm("img_emb.proj.0", clip),
        **_linear("img_emb.proj.1", clip, clip),
        **_linear("img_emb.proj.3", dim, clip, AFTER_ACTIVATION),
        **_norm("img_emb.proj.4", dim),
    }
    for n in range(sizes.layers):
        block = f"blocks.{n}"
        table[f"{block}.modulation"] = Spec((1, 6, dim), MODULATION)
        for name in ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o"):
            table.update(_linear(f"{block}.{name}", dim, dim))
        for name in ("q", "k", "v", "o", "k_img", "v_img"):
            table.update(_linear(f"{block}.cross_attn.{name}", dim, dim))
        for name, mean in {
            "self_attn.norm_q": 1.0,
            "self_attn.norm_k": 1.0,
            "cross_attn.norm_q": TEXT_QUERY,
            "cross_attn.norm_k": TEXT_KEY,
            "cross_attn.norm_k_img": 1.0,
        }.items():
            table[f"{block}.{name}.weight"] = Spec((dim,), 0.05, mean)
        table.update(_norm(f"{block}.norm3", dim))
        table.update(_linear(f"{block}.ffn.0", sizes.ffn, dim))
        table.update(_linear(f"{block}.ffn.2", dim, sizes.ffn, AFTER_ACTIVATION))
    return table


def infinitetalk_table(sizes: Sizes) -> Table:
    dim, inner, width = sizes.dim, sizes.audio_intermediate, sizes.audio_token_dim
    features = sizes.audio_layers * sizes.audio_hidden
    relu = math.sqrt(2)
    table: Table = {
        **_linear("audio_proj.proj1", inner, 5 * features),
        **_linear("audio_proj.proj1_vf", inner, 8 * features),
        **_linear("audio_proj.proj2", inner, inner, relu),
        **_linear("audio_proj.proj3", sizes.audio_tokens * width, inner, relu),
        **_norm("audio_proj.norm", width),
    }
    for n in range(sizes.layers):
        table.update(_linear(f"blocks.{n}.audio_cross_attn.q_linear", dim, dim))
        table.update(_linear(f"blocks.{n}.audio_cross_attn.kv_linear", 2 * dim, width))
        table.update(_linear(f"blocks.{n}.audio_cross_attn.proj", dim, dim, AUDIO_OUT))
        table.update(_norm(f"blocks.{n}.norm_x", dim))
    return table


def text_encoder_table(sizes: Sizes, vocabulary: int) -> Table:
    dim, attn = sizes.text_dim, sizes.text_attn
    rows = 64 * math.ceil(vocabulary / 64)  # the published table, too, has more rows than the tokenizer has pieces
    table: Table = {"token_embedding.weight": Spec((rows, dim), 1.0), "norm.weight": Spec((dim,), 0.05, 1.0)}
    for n in range(sizes.text_layers):
        block = f"blocks.{n}"
        table[f"{block}.norm1.weight"] = Spec((dim,), 0.05, 1.0)
        table[f"{block}.norm2.weight"] = Spec((dim,), 0.05, 1.0)
        table[f"{block}.attn.q.weight"] = _dense(attn, dim, gain=1 / math.sqrt(T5_HEAD))  # T5 does not scale its logits
        table[f"{block}.attn.k.weight"] = _dense(attn, dim)
        table[f"{block}.attn.v.weight"] = _dense(attn, dim)
        table[f"{block}.attn.o.weight"] = _dense(dim, attn)
        table[f"{block}.pos_embedding.embedding.weight"] = Spec((32, attn // T5_HEAD), 0.5)
        table[f"{block}.ffn.gate.0.weight"] = _dense(sizes.text_ffn, dim)
        table[f"{block}.ffn.fc1.weight"] = _dense(sizes.text_ffn, dim)
        table[f"{block}.ffn.fc2.weight"] = _dense(dim, sizes.text_ffn, gain=AFTER_ACTIVATION)
    return table


def image_encoder_table(sizes: Sizes) -> Table:
    dim = sizes.clip_dim
    tokens = (CLIP_IMAGE // CLIP_PATCH) ** 2 + 1
    table: Table = {
        "visual.cls_embedding": Spec((1, 1, dim), 0.5),
        "visual.pos_embedding": Spec((1, tokens, dim), 0.5),
        "visual.patch_embedding.weight": _dense(dim, 3, CLIP_PATCH, CLIP_PATCH),
        **_norm("visual.pre_norm", dim),
        **_norm("visual.post_norm", dim),
        "visual.head": _dense(dim, 64),
        # of the text tower, which is not used here, enough to show that it is passed over
        "textual.token_embedding.weight": Spec((32, 16), 1.0),
        "textual.norm.weight": Spec((16,), 0.05, 1.0),
        "log_scale": Spec((), 0.0, math.log(1 / 0.07)),
    }
    for n in range(sizes.clip_layers):
        block = f"visual.transformer.{n}"
        table.update(_norm(f"{block}.norm1", dim))
        table.update(_linear(f"{block}.attn.to_qkv", 3 * dim, dim))
        table.update(_linear(f"{block}.attn.proj", dim, dim))
        table.update(_norm(f"{block}.norm2", dim))
        table.update(_linear(f"{block}.mlp.0", 4 * dim, dim))
        table.update(_linear(f"{block}.mlp.2", dim, 4 * dim, AFTER_ACTIVATION))
    return table


def vae_table(sizes: Sizes) -> Table:
    d, z = sizes.vae_dim, LATENT_CHANNELS
    return {
        **_conv("encoder.conv1", d, 3, 3, 3, 3),
        **_residual("encoder.downsamples.0", d, d),
        **_residual("encoder.downsamples.1", d, d),
        **_conv("encoder.downsamples.2.resample.1", d, d, 3, 3),
        **_residual("encoder.downsamples.3", d, 2 * d),
        **_residual("encoder.downsamples.4", 2 * d, 2 * d),
        **_conv("encoder.downsamples.5.resample.1", 2 * d, 2 * d, 3, 3),
        **_conv("encoder.downsamples.5.time_conv", 2 * d, 2 * d, 3, 1, 1),
        **_residual("encoder.downsamples.6", 2 * d, 4 * d),
        **_residual("encoder.downsamples.7", 4 * d, 4 * d),
        **_conv("encoder.downsamples.8.resample.1", 4 * d, 4 * d, 3, 3),
        **_conv("encoder.downsamples.8.time_conv", 4 * d, 4 * d, 3, 1, 1),
        **_residual("encoder.downsamples.9", 4 * d, 4 * d),
        **_residual("encoder.downsamples.10", 4 * d, 4 * d),
        **_middle("encoder.middle", 4 * d),
        "encoder.head.0.gamma": Spec((4 * d, 1, 1, 1), 0.05, 1.0),
        **_conv("encoder.head.2", 2 * z, 4 * d, 3, 3, 3, gain=AFTER_ACTIVATION),
        **_conv("conv1", 2 * z, 2 * z, 1, 1, 1, gain=2.0),  # published latents have deviations of 1.1 to 3.3
        **_conv("conv2", z, z, 1, 1, 1, gain=0.5),
        **_conv("decoder.conv1", 4 * d, z, 3, 3, 3),
        **_middle("decoder.middle", 4 * d),
        **_residual("decoder.upsamples.0", 4 * d, 4 * d),
        **_residual("decoder.upsamples.1", 4 * d, 4 * d),
        **_residual("decoder.upsamples.2", 4 * d, 4 * d),
        **_conv("decoder.upsamples.3.resample.1", 2 * d, 4 * d, 3, 3),
        **_conv("decoder.upsamples.3.time_conv", 8 * d, 4 * d, 3, 1, 1),
        **_residual("decoder.upsamples.4", 2 * d, 4 * d),
        **_residual("decoder.upsamples.5", 4 * d, 4 * d),
        **_residual("decoder.upsamples.6", 4 * d, 4 * d),
        **_conv("decoder.upsamples.7.resample.1", 2 * d, 4 * d, 3, 3),
        **_conv("decoder.upsamples.7.time_conv", 8 * d, 4 * d, 3, 1, 1),
        **_residual("decoder.upsamples.8", 2 * d, 2 * d),
        **_residual("decoder.upsamples.9", 2 * d, 2 * d),
        **_residual("decoder.upsamples.10", 2 * d, 2 * d),
        **_conv("decoder.upsamples.11.resample.1", d, 2 * d, 3, 3),
        **_residual("decoder.upsamples.12", d, d),
        **_residual("decoder.upsamples.13", d, d),
        **_residual("decoder.upsamples.14", d, d),
        "decoder.head.0.gamma": Spec((d, 1, 1, 1), 0.05, 1.0),
        **_conv("decoder.head.2", 3, d, 3, 3, 3, gain=PIXEL_DEVIATION),
    }


def _conv(name: str, out: int, into: int, *kernel: int, gain: float = 1.0) -> Table:
    return {f"{name}.weight": _dense(out, into, *kernel, gain=gain), f"{name}.bias": Spec((out,), 0.02)}


def _residual(name: str, into: int, out: int) -> Table:
    return {
        f"{name}.residual.0.gamma": Spec((into, 1, 1, 1), 0.05, 1.0),
        **_conv(f"{name}.residual.2", out, into, 3, 3, 3, gain=AFTER_ACTIVATION),
        f"{name}.residual.3.gamma": Spec((out, 1, 1, 1), 0.05, 1.0),
        **_conv(f"{name}.residual.6", out, out, 3, 3, 3, gain=AFTER_ACTIVATION),
        **(_conv(f"{name}.shortcut", out, into, 1, 1, 1) if into != out else {}),
    }


def _middle(name: str, width: int) -> Table:
    return {
        **_residual(f"{name}.0", width, width),
        f"{name}.1.norm.gamma": Spec((width, 1, 1), 0.05, 1.0),
        **_conv(f"{name}.1.to_qkv", 3 * width, width, 1, 1),
        **_conv(f"{name}.1.proj", width, width, 1, 1),
        **_residual(f"{name}.2", width, width),
    }


SPEECH_PREPROCESSOR = {
    "do_normalize": True,
    "feature_extractor_type": "Wav2Vec2FeatureExtractor",
    "feature_size": 1,
    "padding_side": "right",
    "padding_value": 0,
    "return_attention_mask": False,
    "sampling_rate": 16000,
}


def speech_encoder_config(sizes: Sizes) -> dict:
    """wav2vec2's ``config.json``, with what a loader may ask for."""
    return {
        "architectures": ["Wav2Vec2ForPreTraining"],
        "model_type": "wav2vec2",
        "hidden_size": sizes.audio_hidden,
        "num_hidden_layers": sizes.audio_layers,
        "num_attention_heads": sizes.audio_hidden // 64,
        "intermediate_size": sizes.audio_ffn,
        "hidden_act": "gelu",
        "feat_extract_activation": "gelu",
        "feat_extract_norm": "group",
        "do_stable_layer_norm": False,
        "conv_bias": False,
        "conv_dim": [sizes.audio_conv] * len(WAV2VEC_KERNELS),
        "conv_kernel": list(WAV2VEC_KERNELS),
        "conv_stride": list(WAV2VEC_STRIDES),
        "num_feat_extract_layers": len(WAV2VEC_KERNELS),
        "num_conv_pos_embeddings": 128,
        "num_conv_pos_embedding_groups": 16,
        "layer_norm_eps": 1e-05,
    }


def speech_encoder_table(sizes: Sizes) -> Table:
    hidden, conv, taps, groups = sizes.audio_hidden, sizes.audio_conv, 128, 16
    positions = "encoder.pos_conv_embed.conv"
    table: Table = {
        "masked_spec_embed": Spec((hidden,), 0.5),
        **_norm("feature_extractor.conv_layers.0.layer_norm", conv),
        **_norm("feature_projection.layer_norm", conv),
        **_linear("feature_projection.projection", hidden, conv),
        # weight normalisation, one length per tap; all taps together give unit output for unit input
        f"{positions}.weight_g": Spec((1, 1, taps), 0.0, math.sqrt(hidden / taps)),
        f"{positions}.weight_v": Spec((hidden, hidden // groups, taps), 1.0),
        f"{positions}.bias": Spec((hidden,), 0.02),
        **_norm("encoder.layer_norm", hidden),
    }
    for n, kernel in enumerate(WAV2VEC_KERNELS):
        into, gain = (1, 1.0) if n == 0 else (conv, AFTER_ACTIVATION)
        table[f"feature_extractor.conv_layers.{n}.conv.weight"] = _dense(conv, into, kernel, gain=gain)
    for n in range(sizes.audio_layers):
        layer = f"encoder.layers.{n}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            table.update(_linear(f"{layer}.attention.{name}", hidden, hidden))
        table.update(_norm(f"{layer}.layer_norm", hidden))
        table.update(_linear(f"{layer}.feed_forward.intermediate_dense", sizes.audio_ffn, hidden))
        table.update(_linear(f"{layer}.feed_forward.output_dense", hidden, sizes.audio_ffn, AFTER_ACTIVATION))
        table.update(_norm(f"{layer}.final_layer_norm", hidden))
    table = {f"wav2vec2.{name}": spec for name, spec in table.items()}
    table.update(_linear("project_hid", 16, hidden))  # of the pre-training heads, which are passed over
    return table


def write_shards(weights: Weights, folder: Path) -> None:
    """Write the base model as Wan publishes it: seven files and their index."""
    names = list(weights)
    per_shard = math.ceil(len(names) / SHARDS)
    where: dict[str, str] = {}
    for k in range(SHARDS):
        file = f"diffusion_pytorch_model-{k + 1:05d}-of-{SHARDS:05d}.safetensors"
        part = names[k * per_shard : (k + 1) * per_shard]
        save_file({name: weights[name] for name in part}, folder / file)
        where.update(dict.fromkeys(part, file))
    total = sum(tensor.nbytes for tensor in weights.values())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    write_json(folder / "diffusion_pytorch_model.safetensors.index.json", index)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a small random checkpoint in the real on-disk layout.")
    parser.add_argument("out", type=Path, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other weights")
    arguments = parser.parse_args()
    paths = write(arguments.out, DEMO, arguments.seed)
    print(f"--ckpt_dir {paths.ckpt_dir} --infinitetalk_dir {paths.infinitetalk} --wav2vec_dir {paths.wav2vec_dir}")


if __name__ == "__main__":
    main()
