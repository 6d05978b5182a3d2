"""What a video is made from: a picture, speech, words, and the files of the models.

One part of ``definition.Settings``, which joins them; knows nothing of how it is made, or where it goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..facts import storages
from .roles import CONTENT, FRAMES, JOB, LATER, MACHINE, MODELS, NEUTRAL, UNSAID, UPSTREAM, VIDEO, setting

input_setting = partial(setting, group="Input")
weights_setting = partial(setting, group="Weights")


@dataclass(frozen=True)
class InputSettings:
    """What is to be seen and heard."""

    input_json: Path = input_setting(
        Path("examples.json"), "JSON file with prompt, cond_video and cond_audio.person1", JOB | CONTENT | UPSTREAM
    )
    image: Path | None = input_setting(None, "portrait; instead of cond_video of the JSON", JOB | CONTENT)
    video: Path | None = input_setting(None, "video to dub; instead of cond_video of the JSON", JOB | CONTENT)
    audio: Path | None = input_setting(
        None, "speech: a sound file, or a video whose sound is taken; instead of cond_audio of the JSON", JOB | CONTENT
    )
    speaker: tuple[str, ...] | None = input_setting(
        None,
        "who speaks where: audio=FILE,region=left, right, box:LEFT,TOP,RIGHT,BOTTOM or mask:FILE, and name=NAME; one "
        "for each speaker (two without regions: the left and the right half)",
        JOB | CONTENT,
    )
    audio_type: str | None = input_setting(
        None,
        "how several speakers' sounds are laid out: para, together, or add, one after the other (left out: as the JSON "
        "says, else para)",
        JOB | CONTENT,
        choices=("para", "add"),
    )
    timeline: str | None = input_setting(
        None,
        "who speaks when in one recording (--audio): a JSON or RTTM file; channels or tracks: one for each speaker",
        JOB | CONTENT,
    )
    bind: str = input_setting(
        "auto",
        "how voices find faces: by model, with weights for several speakers; by region, each heard in its own alone "
        "(auto: model, but one voice with weights for one speaker by region)",
        VIDEO | FRAMES,
        choices=("auto", "model", "region"),
    )
    prompt: str | None = input_setting(
        None, "what is to be seen; instead of prompt of the JSON", JOB | CONTENT, sampler=0, free_text=True
    )
    negative_prompt: str | None = input_setting(
        None,
        "what is not to be seen (left out: the text the models were tuned with)",
        JOB | CONTENT,
        sampler=1,
        free_text=True,
    )
    audio_mode: str = input_setting(
        "localfile",
        "where the speech comes from: localfile, or tts for speech synthesis",
        LATER | FRAMES,
        refusal="speech synthesis is not available in this version; give a sound file and --audio_mode localfile.",
    )
    scene_seg: bool = input_setting(
        False,
        "split a reference video at its cuts",
        LATER | FRAMES | UPSTREAM,
        refusal="scene segmentation is not available in this version; leave it out.",
    )


@dataclass(frozen=True)
class WeightsSettings:
    """Which files the models are in, and how they are kept."""

    task: str = weights_setting(
        "infinitetalk-14B",
        "the model; there is only this one",
        VIDEO | FRAMES | UPSTREAM,
        refusal="the only task here is infinitetalk-14B.",
    )
    ckpt_dir: Path | None = weights_setting(
        None,
        "folder of Wan2.1-I2V-14B: transformer, text and image encoder, VAE, tokenizer",
        MODELS | CONTENT | UPSTREAM,
    )
    infinitetalk_dir: Path | None = weights_setting(
        None, "the InfiniteTalk weights (infinitetalk.safetensors)", MODELS | CONTENT | UPSTREAM, loader=1
    )
    wav2vec_dir: Path | None = weights_setting(
        None, "chinese-wav2vec2-base: its folder or a single file", MODELS | CONTENT | UPSTREAM, speech=0
    )
    separate_voice: Path | None = weights_setting(
        None,
        "voice separator, for speech with music: a file of Hybrid Demucs (torchaudio's) or Mel-Band RoFormer",
        MODELS | CONTENT,
        voice=0,
    )
    silence: Path | None = weights_setting(
        None,
        "features of silence, heard behind the end of the speech: encoded_silence.safetensors of "
        "ComfyUI-WanVideoWrapper (left out: computed)",
        MODELS | CONTENT,
    )
    dit_path: Path | None = weights_setting(
        None,
        "transformer file (the Wan 2.1 base, or everything in one), where it is not in --ckpt_dir",
        MODELS | CONTENT,
        loader=0,
    )
    text_encoder: Path | None = weights_setting(
        None, "umT5 file, where it is not in --ckpt_dir", MODELS | CONTENT, loader=2
    )
    clip_vision: Path | None = weights_setting(
        None, "CLIP-H vision file, where it is not in --ckpt_dir", MODELS | CONTENT, loader=3
    )
    vae: Path | None = weights_setting(
        None, "Wan 2.1 VAE file, where it is not in --ckpt_dir", MODELS | CONTENT, loader=4
    )
    tokenizer: Path | None = weights_setting(
        None, "umT5 tokenizer folder or file, where it is not in --ckpt_dir", MODELS | CONTENT, loader=5
    )
    lora_dir: tuple[Path, ...] | None = weights_setting(
        None, "LoRA files; also looked up in the folder of the weights", MODELS | CONTENT | UPSTREAM, lora=0
    )
    lora_scale: tuple[float, ...] = weights_setting(
        (1.2,), "strength of each LoRA, in the order of --lora_dir; may be negative", MODELS | FRAMES | UPSTREAM, lora=1
    )
    lora_mode: str = weights_setting(
        "auto",
        "fuse LoRAs into the weights, or run them beside (auto: fuse, but beside GGUF, which cannot be written again)",
        MODELS | FRAMES,
        loader=9,
        choices=("auto", "fuse", "side"),
    )
    lora_ignore_unmatched: bool = weights_setting(
        False,
        "go on without those keys of a LoRA that have no place in the model",
        MODELS | NEUTRAL | UNSAID,
        loader=10,
    )
    quant: str | None = weights_setting(
        None,
        f"how the transformer's matrices are kept: {' or '.join(storages.choices())}, with a scale for each row "
        "(left out: as in the file)",
        MODELS | FRAMES | UPSTREAM,
        loader=6,
        choices=tuple(storages.choices()),
    )
    quant_dir: Path | None = weights_setting(
        None,
        "file of the quantised transformer, used instead of the base; needs --quant",
        MODELS | CONTENT | UPSTREAM,
        loader=7,
    )
    quant_matmul: str = weights_setting(
        "auto",
        "multiply in 8 bits what is kept in 8 bits (auto: where the card can; off: read the weights back first)",
        MODELS | MACHINE,
        loader=8,
        choices=("auto", "on", "off"),
    )
