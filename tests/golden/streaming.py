"""Whole videos of three windows by upstream's generate_infinitetalk -> streaming_*.safetensors, streaming.json.

streaming.json holds the transformer's ``config``, the ``shapes`` of all weights by model and the
settings of each case (``CASES``). streaming_{case}.safetensors holds:
    video       int16 [3, T, 16, 24]: every second row and column of the final video [3, T, 32, 48],
                values in [-1, 1] times ``VIDEO_SCALE``, before any writing to a file
    latents.{k} float32 [16, t, 4, 6], the latents of window k as they go to the VAE's decoder, that is
                with the clean motion latents in front
    speech      float32 [m, layers, channels], what the windows index: the features of the T frames,
                then the tail that upstream appends (the last features backwards)

To rebuild a run: ``write_checkpoint(folder, config, shapes)`` writes all models and the tokenizer
in upstream's layout; ``write_reference(folder, video)`` writes the portrait or the 25 fps video;
the speech features are ``speech`` (5-frame windows over it, clamped at 0); the noise of window k
is ``recipe.random_tensor(f"noise.{k}", [16, (frame_num - 1) // 4 + 1, 4, 6])``; the prompts are
``PROMPT`` and ``NEGATIVE_PROMPT``. Upstream's buckets are replaced by a single one of 32 x 48
pixels (height x width). APG's momentum is -0.75. All models run in float32.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import tokenizers
import torch
from PIL import Image
from safetensors.torch import save_file

from . import transformer, vae
from .recipe import Shapes, random_state, random_tensor, reference_frames, shapes_of, write_golden, write_lossless_video
from .upstream import import_upstream

HEIGHT, WIDTH, WINDOWS = 32, 48, 3
VIDEO_SCALE = 32767
CLIP_DIM = 160
CONFIG = transformer.CONFIG | {"text_dim": 48}
T5 = {"dim": 48, "dim_attn": 64, "dim_ffn": 96, "num_heads": 4, "encoder_layers": 2, "decoder_layers": 0}
CLIP = {
    "embed_dim": 16,
    "vision_dim": CLIP_DIM,
    "vision_heads": 2,
    "vision_layers": 3,
    "vocab_size": 32,
    "text_dim": 16,
    "text_heads": 2,
    "text_layers": 1,
}
PROMPT = "a person talks calmly to the camera"
OTHER_PROMPT = "a person talks angrily to the camera"
NEGATIVE_PROMPT = "blurred static picture"
VOCABULARY = ["<pad>", "</s>", "<unk>", *sorted({*PROMPT.split(), *OTHER_PROMPT.split(), *NEGATIVE_PROMPT.split()})]

_IMAGE_TWO = {
    "video": False,
    "num_frames": 37,
    "frame_num": 17,
    "motion_frame": 5,
    "steps": 2,
    "shift": 7.0,
    "text_scale": 1.0,
    "audio_scale": 2.0,
    "apg_threshold": None,
    "color_correction_strength": 1.0,
}
_VIDEO_TWO = _IMAGE_TWO | {"video": True, "num_frames": 40, "frame_num": 21, "motion_frame": 9}
_THREE_PASSES = {"steps": 3, "shift": 11.0, "text_scale": 5.0, "audio_scale": 4.0}
CASES = {
    "image_cfg2": _IMAGE_TWO,
    "image_cfg3": _IMAGE_TWO | _THREE_PASSES | {"color_correction_strength": 0.0},
    "image_apg": _IMAGE_TWO | _THREE_PASSES | {"apg_threshold": 20.0, "color_correction_strength": 0.5},
    "video_cfg2": _VIDEO_TWO | {"color_correction_strength": 0.0},
    "video_cfg3": _VIDEO_TWO | _THREE_PASSES,
    "video_apg": _VIDEO_TWO | _THREE_PASSES | {"apg_threshold": 20.0, "color_correction_strength": 0.0},
    # seven motion frames are not 4k + 1: only five of them reach the latents
    "image_motion7": _IMAGE_TWO | {"num_frames": 33, "motion_frame": 7},
}
CHANGES = {
    "speech": {"speech_name": "other speech"},
    "a word of the prompt": {"prompt": OTHER_PROMPT},
    "the picture": {"mirrored": True},
}


def make(upstream: Path, out: Path) -> None:
    """Write the files; fails if speech, a word of the prompt or the picture moves a video by less than 1 %."""
    with import_upstream(upstream), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        shapes = _shapes()
        write_checkpoint(Path(folder), CONFIG, shapes)
        pipeline = _pipeline(Path(folder), shapes)
        for name, case in CASES.items():
            run = partial(_generate, pipeline, Path(folder), case)
            tensors = run()
            for what, change in CHANGES.items():
                transformer.check_alive(f"streaming {name}: {what}", tensors["video"], run(**change)["video"])
            video = (tensors["video"] * VIDEO_SCALE).round().to(torch.int16)
            write_golden(out / f"streaming_{name}.safetensors", tensors | {"video": video[:, :, ::2, ::2]})
    description = {"config": CONFIG, "shapes": shapes, "cases": CASES}
    (out / "streaming.json").write_text(json.dumps(description) + "\n", encoding="utf-8")


def write_checkpoint(folder: Path, config: dict[str, object], shapes: dict[str, Shapes]) -> None:
    """Write all the models into one folder under upstream's file names (the transformer in two files)."""
    states = {model: random_state(of_model) for model, of_model in shapes.items()}
    base = {name: tensor for name, tensor in states["transformer"].items() if not _is_audio(name)}
    audio = {name: tensor for name, tensor in states["transformer"].items() if _is_audio(name)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(base, folder / "diffusion_pytorch_model.safetensors")
    (folder / "InfiniteTalk").mkdir()
    save_file(audio, folder / "InfiniteTalk" / "infinitetalk.safetensors")
    torch.save(states["text_encoder"], folder / "models_t5_umt5-xxl-enc-bf16.pth")
    torch.save(states["image_encoder"], folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth")
    torch.save(vae.golden_weights(shapes["vae"]), folder / "Wan2.1_VAE.pth")
    write_tokenizer(folder / "google" / "umt5-xxl")


def _is_audio(name: str) -> bool:
    return name.startswith("audio_proj.") or ".audio_cross_attn." in name or ".norm_x." in name


def write_tokenizer(folder: Path) -> None:
    """A tokenizer that knows the words of the prompts and ends a text with ``</s>``."""
    folder.mkdir(parents=True)
    vocabulary = {word: index for index, word in enumerate(VOCABULARY)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    end = ("</s>", vocabulary["</s>"])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[end])
    tokenizer.add_special_tokens(VOCABULARY[:3])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")


def write_reference(folder: Path, video: bool, mirrored: bool = False) -> Path:
    """The portrait (70 x 100 pixels, PNG) or the video (30 such frames at 25 fps, lossless)."""
    frames = reference_frames(30, 70, 100)
    if mirrored:
        frames = np.ascontiguousarray(frames[:, :, ::-1])
    path = folder / f"{'mirrored' if mirrored else 'reference'}.{'mp4' if video else 'png'}"
    if video:
        write_lossless_video(path, frames)
    else:
        Image.fromarray(frames[0]).save(path)
    return path


def _small_models() -> dict[str, object]:
    """Constructors of upstream's models, as partials that leave out what the checkpoint holds."""
    from wan.modules import clip, multitalk_model, t5
    from wan.modules import vae as wan_vae

    def small_transformer() -> torch.nn.Module:
        with transformer.small_dimensions(multitalk_model, CLIP_DIM):
            return multitalk_model.WanModel(**CONFIG)

    return {
        "transformer": small_transformer,
        "text_encoder": partial(t5.umt5_xxl, vocab_size=len(VOCABULARY), **T5),
        "image_encoder": partial(clip.clip_xlm_roberta_vit_h_14, **CLIP),
        "vae": partial(wan_vae.WanVAE_, **vae.CONFIG),
    }


def _shapes() -> dict[str, dict[str, list[int]]]:
    models = _small_models()
    models["text_encoder"] = partial(models["text_encoder"], encoder_only=True)
    return {name: shapes_of(build()) for name, build in models.items()}


def _pipeline(folder: Path, shapes: dict[str, Shapes]) -> object:
    """Upstream's pipeline with its own wrappers of each model, loaded from ``folder``.

    Its constructor is left out, since that insists on CUDA and on the size of the 14B model.
    """
    from wan.modules import clip, t5
    from wan.modules import vae as wan_vae
    from wan.multitalk import InfiniteTalkPipeline

    models, device = _small_models(), torch.device("cpu")
    pipeline = object.__new__(InfiniteTalkPipeline)
    tokenizer = str(folder / "google" / "umt5-xxl")
    with mock.patch.object(t5, "umt5_xxl", models["text_encoder"]):
        pipeline.text_encoder = t5.T5EncoderModel(
            512, torch.float32, device, str(folder / "models_t5_umt5-xxl-enc-bf16.pth"), tokenizer
        )
    with mock.patch.object(clip, "clip_xlm_roberta_vit_h_14", models["image_encoder"]):
        pipeline.clip = clip.CLIPModel(
            torch.float32, device, str(folder / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth"), tokenizer
        )
    with mock.patch.object(wan_vae, "_video_vae", partial(wan_vae._video_vae, **vae.CONFIG)):
        pipeline.vae = wan_vae.WanVAE(vae_pth=str(folder / "Wan2.1_VAE.pth"), device=device)
    pipeline.model = models["transformer"]().eval().requires_grad_(False)
    pipeline.model.load_state_dict(random_state(shapes["transformer"]))
    pipeline.device, pipeline.param_dtype = device, torch.float32
    pipeline.vae_stride, pipeline.patch_size = (4, 8, 8), (1, 2, 2)
    pipeline.rank, pipeline.sp_size, pipeline.t5_cpu, pipeline.vram_management = 0, 1, False, False
    pipeline.num_timesteps, pipeline.use_timestep_transform = 1000, True
    return pipeline


def _generate(
    pipeline: object,
    folder: Path,
    case: dict[str, object],
    prompt: str = PROMPT,
    speech_name: str = "speech",
    mirrored: bool = False,
    others: Sequence[str] = (),
    bbox: dict[str, list[int]] | None = None,
) -> dict[str, torch.Tensor]:
    """One run of upstream's pipeline: the whole video and what streaming_{case} holds beside it.

    Args:
        others: names of more speakers' speech; ``speech.{name}`` in the result.
        bbox: where speakers are, as upstream's JSON has it.
    """
    from wan.utils import multitalk_utils

    size = [case["num_frames"], transformer.AUDIO_LAYERS, transformer.AUDIO_CHANNELS]
    spoken = {name: random_tensor(name, size) for name in (speech_name, *others)}
    for name, features in spoken.items():
        torch.save(features, folder / f"{name}.pt")
    speech = spoken[speech_name]
    latents, latent_frames = [], (case["frame_num"] - 1) // 4 + 1
    noise = [random_tensor(f"noise.{k}", [16, latent_frames, HEIGHT // 8, WIDTH // 8]) for k in range(WINDOWS)]

    def decode(batch: list[torch.Tensor]) -> list[torch.Tensor]:
        latents.extend(x.clone() for x in batch)
        return type(pipeline.vae).decode(pipeline.vae, batch)

    with (
        mock.patch.dict(multitalk_utils.ASPECT_RATIO_627, {"0.67": ([HEIGHT, WIDTH], 1)}, clear=True),
        mock.patch.object(torch, "randn", side_effect=noise),
        mock.patch.object(pipeline.vae, "decode", decode),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        video = pipeline.generate_infinitetalk(
            {
                "prompt": prompt,
                "cond_video": str(write_reference(folder, case["video"], mirrored)),
                "cond_audio": {f"person{k + 1}": str(folder / f"{name}.pt") for k, name in enumerate(spoken)},
                **({} if bbox is None else {"bbox": bbox}),
            },
            size_buckget="infinitetalk-480",
            motion_frame=case["motion_frame"],
            frame_num=case["frame_num"],
            shift=case["shift"],
            sampling_steps=case["steps"],
            text_guide_scale=case["text_scale"],
            audio_guide_scale=case["audio_scale"],
            n_prompt=NEGATIVE_PROMPT,
            seed=0,
            offload_model=False,
            progress=False,
            color_correction_strength=case["color_correction_strength"],
            extra_args=argparse.Namespace(
                use_teacache=case.get("teacache") is not None,
                teacache_thresh=case.get("teacache"),
                size="infinitetalk-480",
                use_apg=case["apg_threshold"] is not None,
                apg_momentum=-0.75,
                apg_norm_threshold=case["apg_threshold"],
            ),
        )
    extended = {f"speech.{name}": _extended(spoken[name], case) for name in others}
    return (
        {"video": video, "speech": _extended(speech, case)}
        | extended
        | {f"latents.{k}": x for k, x in enumerate(latents)}
    )


def _extended(speech: torch.Tensor, case: dict[str, object]) -> torch.Tensor:
    """The features with the tail that upstream appends before the last window."""
    end, stride = case["frame_num"], case["frame_num"] - case["motion_frame"]
    while end < len(speech):
        end += stride
    return torch.cat([speech, speech[-(end - len(speech) + 3) :].flip(0)])
