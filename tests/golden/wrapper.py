"""Import a checkout of ComfyUI-WanVideoWrapper without ComfyUI's server and run its nodes on a CPU, in fp32.

The pack is starsFriday/ComfyUI-WanVideoWrapper-Enhanced-Infinitetalk at 9a4616c, whose classes are Kijai's of October
2025. Its files are linked into a temporary folder where two of its data files are others: wav2vec2's config is that of
the small model, and so is the stored silence. Sizes that it fixes at the real model's become those of the small one.
Everything else is the pack's and ComfyUI's code as it is. Needs the packages ``einops``, ``accelerate`` and
``color-matcher``. Does not know what is computed with it.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import sys
import types
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from unittest import mock

from ..support.random_checkpoint import Sizes, speech_encoder_config

PACKAGE = "wrapper"
SILENCE = "encoded_silence.safetensors"


@contextlib.contextmanager
def import_wrapper(pack: Path, comfyui: Path, sizes: Sizes, vocabulary: int, models: Path) -> Iterator[None]:
    """Make ``import comfy`` and ``import wrapper`` find ComfyUI and the pack, for models of ``sizes``.

    Args:
        pack: the checkout.
        comfyui: ComfyUI's folder.
        vocabulary: rows of the text encoder's table.
        models: a folder with ``diffusion_models``, ``vae`` and so on, a ``tokenizer``, and SILENCE; the pack is linked
            into it.

    Raises:
        FileNotFoundError: ``pack`` is no checkout of the pack.
    """
    if not (pack / "nodes_sampler.py").is_file():
        raise FileNotFoundError(f"{pack} is not a checkout of the pack: it has no nodes_sampler.py")
    logging.disable(logging.WARNING)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "path", [str(comfyui), *sys.path]))
        stack.enter_context(mock.patch.object(sys, "argv", ["comfyui", "--cpu", "--fp32-text-enc"]))
        importlib.import_module("comfy.options").enable_args_parsing()
        importlib.import_module("comfy.model_management")
        paths = importlib.import_module("folder_paths")
        for kind in ("diffusion_models", "vae", "text_encoders", "wav2vec2", "clip_vision"):
            paths.add_model_folder_path(kind, str(models / kind), is_default=True)
        root = _linked(pack, models, sizes)
        sys.modules[PACKAGE] = types.ModuleType(PACKAGE)
        sys.modules[PACKAGE].__path__ = [str(root)]
        preview = types.ModuleType(f"{PACKAGE}.latent_preview")  # which needs ComfyUI's server
        preview.prepare_callback = lambda *given: None
        sys.modules[preview.__name__] = preview
        for patch in _small(sizes, vocabulary):
            stack.enter_context(patch)
        yield


def module(name: str) -> types.ModuleType:
    """A module of the pack."""
    return importlib.import_module(f"{PACKAGE}.{name}")


def _linked(pack: Path, models: Path, sizes: Sizes) -> Path:
    """The pack, but for two data files."""
    root = models / "pack"
    for folder in ("multitalk", "configs"):
        (root / folder).mkdir(parents=True)
    for path in (*pack.iterdir(), *(pack / "multitalk").iterdir(), *(pack / "configs").iterdir()):
        if path.name not in ("multitalk", "configs", "T5_tokenizer", SILENCE, "wav2vec2_config.json"):
            (root / path.relative_to(pack)).symlink_to(path.resolve())
    (root / "configs" / "T5_tokenizer").symlink_to(models / "tokenizer")
    (root / "multitalk" / SILENCE).symlink_to(models / SILENCE)
    (root / "multitalk" / "wav2vec2_config.json").write_text(json.dumps(speech_encoder_config(sizes)))
    return root


def _small(sizes: Sizes, vocabulary: int) -> list:
    """What the pack fixes at the real model's sizes."""
    model, multitalk = module("wanvideo.modules.model"), module("multitalk.multitalk")
    vae, t5, loading = module("wanvideo.wan_video_vae"), module("wanvideo.modules.t5"), module("nodes_model_loading")
    audio = {"intermediate_dim": sizes.audio_intermediate, "output_dim": sizes.audio_token_dim}
    audio |= {"context_tokens": sizes.audio_tokens, "blocks": sizes.audio_layers, "channels": sizes.audio_hidden}
    text = {"dim": sizes.text_dim, "dim_attn": sizes.text_attn, "dim_ffn": sizes.text_ffn}
    text |= {"num_heads": sizes.text_attn // 64, "encoder_layers": sizes.text_layers, "decoder_layers": 0}
    text |= {"vocab_size": vocabulary}
    wan = {"num_heads": sizes.heads, "num_layers": sizes.layers, "text_dim": sizes.text_dim}

    def changed(owner: types.ModuleType, name: str, **values: object) -> object:
        real = getattr(owner, name)
        return mock.patch.object(owner, name, lambda *given, **named: real(*given, **(named | values)))

    return [
        changed(loading, "WanModel", freq_dim=sizes.freq_dim, **wan),
        changed(multitalk, "AudioProjModel", **audio),
        mock.patch.object(model, "MLPProj", _of_width(model.MLPProj, sizes.clip_dim)),
        mock.patch.object(
            multitalk, "SingleStreamMultiAttention", _of_audio(multitalk.SingleStreamMultiAttention, sizes)
        ),
        mock.patch.object(vae, "VideoVAE_", partial(vae.VideoVAE_, dim=sizes.vae_dim)),
        changed(t5, "umt5_xxl", **text),
    ]


def _of_width(real: type, width: int) -> object:
    return lambda in_dim, *given, **named: real(width, *given, **named)


def _of_audio(real: type, sizes: Sizes) -> object:
    small = {"encoder_hidden_states_dim": sizes.audio_token_dim, "num_heads": sizes.heads}
    return lambda **named: real(**(named | small))
