"""Every setting, once: name, type, default, range and one line of help.

The command line's flags, the presets and docs/settings.md are made from ``Settings``; whether values are right
is for ``validation``. Nothing heavy is imported.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PIXELS_480 = 640 * 960  # frames up to this size go with upstream's values for 480, larger ones with those for 720
NEGATIVE_PROMPT = (  # what the models were tuned with: sample_neg_prompt in upstream's wan_multitalk_14B.py
    "bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, "
    "overall gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, "
    "poorly drawn hands, poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, "
    "messy background, three legs, many people in the background, walking backwards"
)

ONE_GPU = "this version runs on one GPU; leave it out and start without torchrun."


def setting(
    default: object,
    help: str,
    *,
    group: str,
    choices: tuple[str, ...] = (),
    min: float | None = None,
    max: float | None = None,
    unit: str = "",
    free_text: bool = False,
    landed: bool = True,
    refusal: str = "",
) -> typing.Any:
    """A field of ``Settings`` and what everyone needs to know about it.

    Args:
        help: one line, without the default.
        min, max: inclusive range of each number.
        unit: what the number counts.
        free_text: any text is a value, the word "none" too.
        landed: whether the feature is there; if not, ``refusal`` says so.
        refusal: why any value but the default is refused.
    """
    about = SettingInfo(help, group, choices, min, max, unit, free_text, landed, refusal)
    return dataclasses.field(default=default, metadata={"info": about})


@dataclass(frozen=True)
class SettingInfo:
    """What ``setting`` was told."""

    help: str
    group: str
    choices: tuple[str, ...]
    min: float | None
    max: float | None
    unit: str
    free_text: bool
    landed: bool
    refusal: str


@dataclass(frozen=True)
class SettingType:
    """The type of a setting: ``kind`` is bool, int, float, str or Path."""

    kind: type
    optional: bool
    several: bool


INPUT, WEIGHTS, VIDEO = "Input", "Weights", "Video"
SAMPLING, SPEED, OUTPUT = "Sampling", "Speed and memory", "Output"


@dataclass(frozen=True)
class Settings:
    """What to make and how. Paths may be given as strings, several values as a list."""

    input_json: Path = setting(
        Path("examples.json"), "JSON file with prompt, cond_video and cond_audio.person1", group=INPUT
    )
    image: Path | None = setting(None, "portrait; instead of cond_video of the JSON", group=INPUT)
    video: Path | None = setting(None, "video to dub; instead of cond_video of the JSON", group=INPUT)
    audio: Path | None = setting(
        None, "speech: a sound file, or a video whose sound is taken; instead of cond_audio of the JSON", group=INPUT
    )
    prompt: str | None = setting(None, "what is to be seen; instead of prompt of the JSON", group=INPUT, free_text=True)
    negative_prompt: str | None = setting(
        None, "what is not to be seen (left out: the text the models were tuned with)", group=INPUT, free_text=True
    )
    audio_mode: str = setting(
        "localfile",
        "where the speech comes from: localfile, or tts for speech synthesis",
        group=INPUT,
        landed=False,
        refusal="speech synthesis is not available in this version; give a sound file and --audio_mode localfile.",
    )
    scene_seg: bool = setting(
        False,
        "split a reference video at its cuts",
        group=INPUT,
        landed=False,
        refusal="scene segmentation is not available in this version; leave it out.",
    )

    task: str = setting(
        "infinitetalk-14B",
        "the model; there is only this one",
        group=WEIGHTS,
        refusal="the only task here is infinitetalk-14B.",
    )
    ckpt_dir: Path | None = setting(
        None, "folder of Wan2.1-I2V-14B: transformer, text and image encoder, VAE, tokenizer", group=WEIGHTS
    )
    infinitetalk_dir: Path | None = setting(None, "the InfiniteTalk weights (infinitetalk.safetensors)", group=WEIGHTS)
    wav2vec_dir: Path | None = setting(None, "chinese-wav2vec2-base: its folder or a single file", group=WEIGHTS)
    dit_path: Path | None = setting(
        None, "transformer file (the Wan 2.1 base, or everything in one), where it is not in --ckpt_dir", group=WEIGHTS
    )
    text_encoder: Path | None = setting(None, "umT5 file, where it is not in --ckpt_dir", group=WEIGHTS)
    clip_vision: Path | None = setting(None, "CLIP-H vision file, where it is not in --ckpt_dir", group=WEIGHTS)
    vae: Path | None = setting(None, "Wan 2.1 VAE file, where it is not in --ckpt_dir", group=WEIGHTS)
    tokenizer: Path | None = setting(
        None, "umT5 tokenizer folder or file, where it is not in --ckpt_dir", group=WEIGHTS
    )
    lora_dir: tuple[Path, ...] | None = setting(
        None, "LoRA files; also looked up in the folder of the weights", group=WEIGHTS
    )
    lora_scale: tuple[float, ...] = setting(
        (1.2,), "strength of each LoRA, in the order of --lora_dir; may be negative", group=WEIGHTS
    )
    lora_mode: str = setting(
        "auto",
        "fuse LoRAs into the weights, or run them beside (auto: fuse, but beside GGUF, which cannot be written again)",
        group=WEIGHTS,
        choices=("auto", "fuse", "side"),
    )
    lora_ignore_unmatched: bool = setting(
        False, "go on without those keys of a LoRA that have no place in the model", group=WEIGHTS
    )
    quant: str | None = setting(
        None,
        "how the transformer's matrices are kept: fp8 or int8, with a scale for each row (left out: as in the file)",
        group=WEIGHTS,
        choices=("fp8", "int8"),
    )
    quant_dir: Path | None = setting(
        None, "file of the quantised transformer, used instead of the base; needs --quant", group=WEIGHTS
    )
    quant_matmul: str = setting(
        "auto",
        "multiply in 8 bits what is kept in 8 bits (auto: where the card can; off: read the weights back first)",
        group=WEIGHTS,
        choices=("auto", "on", "off"),
    )

    size: str = setting(
        "infinitetalk-480",
        "infinitetalk-480 or infinitetalk-720 (aspect as the reference's), or WIDTHxHEIGHT, snapped to 16",
        group=VIDEO,
    )
    mode: str = setting(
        "streaming",
        "streaming: as long as the speech; clip: one window",
        group=VIDEO,
        choices=("streaming", "clip"),
    )
    frame_num: int = setting(81, "length of a window: 4n+1", group=VIDEO, min=5, unit="frames")
    motion_frame: int = setting(
        9, "end of a window that the next one starts from; below frame_num", group=VIDEO, min=1, unit="frames"
    )
    max_frame_num: int | None = setting(
        None, "longest video; speech beyond it is cut (none: unlimited)", group=VIDEO, min=1, unit="frames"
    )
    color_correction_strength: float = setting(
        1.0, "how far colours are pulled to the reference's; 0 is off", group=VIDEO, min=0, max=1
    )
    seam_frames: int = setting(
        0,
        "first new frames of a window that even out the small jump where windows meet; try 4, 0 is off",
        group=VIDEO,
        min=0,
        max=32,
        unit="frames",
    )

    preset: str | None = setting(
        None, "take settings from presets/NAME.toml; flags given beside it win", group=SAMPLING
    )
    sample_steps: int | None = setting(
        None, "denoising steps (left out: 40, or 4 with flowmatch_distill)", group=SAMPLING, min=1, max=1000
    )
    sample_shift: float | None = setting(
        None, "shift of the noise schedule (left out: 7 at 480, 11 at 720)", group=SAMPLING, min=0.01, max=1000
    )
    sample_solver: str = setting(
        "euler",
        "euler is upstream's; flowmatch_distill is for 4-step LoRAs; unipc and lcm need diffusers",
        group=SAMPLING,
        choices=("euler", "flowmatch_distill", "unipc", "lcm"),
    )
    sample_text_guide_scale: float = setting(
        5.0, "guidance by the prompt; 1 is off and saves a pass", group=SAMPLING, min=0
    )
    sample_audio_guide_scale: float = setting(
        4.0, "guidance by the speech; 1 is off and saves a pass", group=SAMPLING, min=0
    )
    sample_audio_guide_steps: int | None = setting(
        None,
        "first steps with guidance by the speech, each later one saves its pass (left out: all steps)",
        group=SAMPLING,
        min=1,
        unit="steps",
    )
    base_seed: int = setting(42, "seed of the noise; negative: a random one", group=SAMPLING, max=2**64 - 1)
    use_apg: bool = setting(False, "adaptive projected guidance (arXiv 2410.02416)", group=SAMPLING)
    apg_momentum: float = setting(-0.75, "momentum of --use_apg", group=SAMPLING, min=-1, max=1)
    apg_norm_threshold: float = setting(55.0, "largest norm of a guidance step of --use_apg", group=SAMPLING, min=0)

    use_teacache: bool = setting(
        False, "skip steps that change little (TeaCache); never acts in the first 5 steps", group=SPEED
    )
    teacache_thresh: float = setting(0.2, "change that --use_teacache may let pass", group=SPEED, min=0)
    offload_model: bool | None = setting(
        None, "keep models in host memory while others run (left out: they stay on the card)", group=SPEED
    )
    t5_cpu: bool = setting(False, "run the text encoder on the CPU", group=SPEED)
    num_persistent_param_in_dit: int | None = setting(
        None,
        "transformer parameters that stay on the card, the others are copied in; 0 needs least",
        group=SPEED,
        min=0,
        unit="parameters",
    )
    blocks_to_swap: int | None = setting(
        None, "transformer blocks that are copied in when needed (of 40)", group=SPEED, min=0, unit="blocks"
    )
    device: str = setting("auto", "auto, cpu, cuda or cuda:N", group=SPEED)
    dtype: str = setting(
        "auto",
        "precision of transformer and text encoder (auto: bf16 on a GPU, fp16 on one before RTX 30xx, fp32 on a CPU)",
        group=SPEED,
        choices=("auto", "bf16", "fp16", "fp32"),
    )
    vae_dtype: str = setting(
        "auto",
        "precision of the VAE (auto: bf16 on a GPU from RTX 30xx on; fp32 elsewhere and with --dtype fp32)",
        group=SPEED,
        choices=("auto", "fp32", "bf16"),
    )
    vram_limit: float | None = setting(
        None,
        "graphics memory to get by with; decides how many blocks stay on the card (left out: what is free)",
        group=SPEED,
        min=2,
        unit="GiB",
    )
    attention: str = setting(
        "auto",
        "attention kernel (auto: the fastest exact one; cudnn_fp8 and sage compute in 8 bits: faster, not exact)",
        group=SPEED,
        choices=("auto", "sdpa", "cudnn", "cudnn_fp8", "flash", "sage"),
    )
    kernels: str = setting(
        "auto",
        "what runs between matrix products: plain PyTorch, or fused Triton kernels (auto: where they work)",
        group=SPEED,
        choices=("auto", "plain", "triton"),
    )
    ulysses_size: int = setting(
        1, "GPUs that share the heads", group=SPEED, min=1, unit="GPUs", landed=False, refusal=ONE_GPU
    )
    ring_size: int = setting(
        1, "GPUs that share the sequence", group=SPEED, min=1, unit="GPUs", landed=False, refusal=ONE_GPU
    )
    t5_fsdp: bool = setting(False, "shard the text encoder over GPUs", group=SPEED, landed=False, refusal=ONE_GPU)
    dit_fsdp: bool = setting(False, "shard the transformer over GPUs", group=SPEED, landed=False, refusal=ONE_GPU)

    save_file: Path | None = setting(
        None, "the video to write; .mp4 is added (left out: named by size, prompt and time)", group=OUTPUT
    )
    audio_save_dir: Path = setting(
        Path("save_audio"),
        "upstream's folder for speech embeddings; none are written here, so leave it out",
        group=OUTPUT,
        refusal="speech embeddings are kept in memory here and written nowhere; leave it out.",
    )
    crf: int = setting(18, "H.264 quality: 0 is lossless, 51 the worst", group=OUTPUT, min=0, max=51)
    overwrite: bool = setting(False, "replace the video if it exists", group=OUTPUT)
    resume: bool = setting(
        False, "go on with the video of this name where an earlier run stopped, if there is one", group=OUTPUT
    )
    quiet: bool = setting(False, "print the video's path and nothing else", group=OUTPUT)
    dry_run: bool = setting(False, "check everything, print the plan, make nothing", group=OUTPUT)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, expected = getattr(self, field.name), setting_types()[field.name]
            if expected.several and isinstance(value, list | tuple):
                value = tuple(Path(v) if expected.kind is Path and isinstance(v, str) else v for v in value)
            elif expected.kind is Path and isinstance(value, str):
                value = Path(value)
            object.__setattr__(self, field.name, value)

    def as_json(self) -> dict[str, object]:
        """All values by name, as JSON has them: paths are texts, several values a list."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {name: _json_value(value) for name, value in values.items()}

    def replace(self, **changes: object) -> Settings:
        """The same settings with some changed."""
        return dataclasses.replace(self, **changes)


def _json_value(value: object) -> object:
    if isinstance(value, tuple):
        return [_json_value(single) for single in value]
    return str(value) if isinstance(value, Path) else value


def setting_infos() -> dict[str, SettingInfo]:
    """What is known about every setting, by name, in the order of ``Settings``."""
    return {field.name: field.metadata["info"] for field in dataclasses.fields(Settings)}


@cache
def setting_types() -> dict[str, SettingType]:
    """The type of every setting, by name."""
    hints = typing.get_type_hints(Settings)
    return {field.name: _setting_type(hints[field.name]) for field in dataclasses.fields(Settings)}


def _setting_type(hint: object) -> SettingType:
    members = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    optional = type(None) in members
    (inner,) = (member for member in members if member is not type(None))
    several = typing.get_origin(inner) is tuple
    return SettingType(typing.get_args(inner)[0] if several else inner, optional, several)
