"""Writes the trained parts as the published files are: Wan's folder, InfiniteTalk's file, wav2vec2's folder.

Half precision throughout, each file under 16 MB. Knows nothing of training.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ..random_checkpoint import (
    BASE_DIR,
    DEMO,
    INFINITETALK_FILE,
    SPEECH_PREPROCESSOR,
    VAE_FILE,
    WAV2VEC_DIR,
    transformer_config,
    write_shards,
)
from ..random_tokenizer import write_json
from . import reader, speech_encoder, transformer, vae
from .transformer_network import CONFIG

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
    sizes = {path: path.stat().st_size for path in sorted(folder.rglob("*")) if path.is_file()}
    for path, size in sizes.items():
        path.chmod(0o644)
        print(f"{size:>10} {path.relative_to(folder)}")
    print(f"{sum(sizes.values()):>10} in all")


def _transformer_config() -> dict:
    """``config.json`` with the keys that Wan publishes."""
    sizes = replace(DEMO, dim=CONFIG.dim, ffn=CONFIG.ffn_dim, freq_dim=CONFIG.freq_dim)
    return transformer_config(replace(sizes, heads=CONFIG.num_heads, layers=CONFIG.num_layers))
