"""Writes the trained parts as the published files are, Wan's folder, InfiniteTalk's file, wav2vec2's; or reads them.

Half precision throughout, each file under 16 MB. Knows nothing of training.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..tests.support.random_checkpoint import (
    BASE_DIR,
    CLIP_FILE,
    DEMO,
    INFINITETALK_FILE,
    SPEECH_PREPROCESSOR,
    T5_FILE,
    TOKENIZER_DIR,
    VAE_FILE,
    WAV2VEC_DIR,
    transformer_config,
    write_shards,
)
from ..tests.support.random_tokenizer import write_json
from . import lora, reader, speech_encoder, transformer, vae
from .transformer_network import CONFIG
from .vae_network import wan_statistics

LORA_FILE = "demo_lora_4_steps.safetensors"
_AUDIO = re.compile(r"^audio_proj\.|\.audio_cross_attn\.|\.norm_x\.")


def write(stages: Path, folder: Path) -> None:
    """The model set from the stages' weights in ``stages``."""
    base = folder / BASE_DIR
    shutil.copytree(stages / "frozen", base)
    weights = {name: tensor.bfloat16() for name, tensor in load_file(stages / transformer.FILE).items()}
    write_shards({name: tensor for name, tensor in weights.items() if not _AUDIO.search(name)}, base)
    write_json(base / "config.json", _transformer_config())
    infinitetalk = folder / INFINITETALK_FILE
    infinitetalk.parent.mkdir(parents=True)
    save_file({name: tensor for name, tensor in weights.items() if _AUDIO.search(name)}, infinitetalk)
    trained = vae.load(stages / vae.FILE, torch.device("cpu"))
    kept = {name: tensor.half() for name, tensor in trained.state_dict().items() if not name.startswith("latent_")}
    torch.save(kept, base / VAE_FILE)
    wav2vec = folder / WAV2VEC_DIR
    wav2vec.mkdir()
    (wav2vec / "config.json").write_text(speech_encoder.config_json(), encoding="utf-8")
    write_json(wav2vec / "preprocessor_config.json", SPEECH_PREPROCESSOR)
    heard = {name: tensor.half() for name, tensor in load_file(stages / speech_encoder.FILE).items()}
    save_file(heard, wav2vec / "model.safetensors", {"format": "pt"})
    shutil.copy(stages / reader.FILE, folder / reader.FILE)
    if (stages / lora.FILE).is_file():
        shutil.copy(stages / lora.FILE, folder / LORA_FILE)
    sizes = {path: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    for path, size in sizes.items():
        path.chmod(0o644)
        print(f"{size:>10} {path.relative_to(folder)}")
    print(f"{sum(sizes.values()):>10} in all")


def read_back(folder: Path, stages: Path) -> None:
    """The stages' weights, as near as half precision kept them, from a model set: to train on from it."""
    stages.mkdir(parents=True, exist_ok=True)
    base = folder / BASE_DIR
    weights = load_file(folder / INFINITETALK_FILE)
    for shard in sorted(base.glob("diffusion_pytorch_model-*.safetensors")):
        weights.update(load_file(shard))
    save_file(weights, stages / transformer.FILE)
    kept = torch.load(base / VAE_FILE, map_location="cpu", weights_only=True)
    kept = {name: tensor.float().contiguous() for name, tensor in kept.items()}
    # folded once: latents have Wan's statistics, so folding again changes nothing
    mean, std = (one.flatten() for one in wan_statistics(torch.device("cpu")))
    save_file({**kept, "latent_mean": mean, "latent_std": std}, stages / vae.FILE)
    save_file(
        {name: tensor.float() for name, tensor in load_file(folder / WAV2VEC_DIR / "model.safetensors").items()},
        stages / speech_encoder.FILE,
    )
    shutil.copy(folder / reader.FILE, stages / reader.FILE)
    shutil.copy(folder / LORA_FILE, stages / lora.FILE)
    frozen = stages / "frozen"
    shutil.copytree(base / TOKENIZER_DIR, frozen / TOKENIZER_DIR, dirs_exist_ok=True)
    for name in (T5_FILE, CLIP_FILE):
        shutil.copy(base / name, frozen / name)


def _transformer_config() -> dict:
    """``config.json`` with the keys that Wan publishes."""
    sizes = replace(DEMO, dim=CONFIG.dim, ffn=CONFIG.ffn_dim, freq_dim=CONFIG.freq_dim)
    return transformer_config(replace(sizes, heads=CONFIG.num_heads, layers=CONFIG.num_layers))
