"""Every setting, once: name, type, default, range, one line of help, and its roles.

The command line's flags, the widgets, the presets, docs/settings.md and everything that follows from what a
setting is for are made from ``Settings``; whether values are right is for ``validation``. Nothing heavy is imported.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

from ..facts import storages
from ..facts.attention import ATTENTION, attention_help
from ..facts.colours import COLOURS, colours_help
from ..facts.noises import NOISES, noises_help
from ..facts.packs import PACKS, packs_help
from ..facts.solvers import SOLVERS, solvers_help, steps_help
from .roles import (
    CONTENT,
    FOLLOWS,
    FRAMES,
    JOB,
    LATER,
    MACHINE,
    MODELS,
    NEUTRAL,
    RUN,
    UNREAD,
    UNSAID,
    UPSTREAM,
    VIDEO,
    Json,
    Node,
    Role,
    SettingInfo,
    SettingType,
    Value,
    json_value,
    setting,
)

PROMPT = "A person is talking to the camera."  # where picture and speech are given and nothing says what is to be seen
PIXELS_480 = 640 * 960  # frames up to this size go with upstream's values for 480, larger ones with those for 720
NEGATIVE_PROMPT = (  # what the models were tuned with: sample_neg_prompt in upstream's wan_multitalk_14B.py
    "bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, "
    "overall gray, worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, "
    "poorly drawn hands, poorly drawn faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, "
    "messy background, three legs, many people in the background, walking backwards"
)


_GROUPS = "Input", "Weights", "Video", "Sampling", "Speed and memory", "Output"
input_setting, weights_setting, video_setting, sampling_setting, speed_setting, output_setting = (
    partial(setting, group=group) for group in _GROUPS
)


@dataclass(frozen=True)
class Settings:
    """What to make and how. Paths may be given as strings, several values as a list."""

    input_json: Path = input_setting(
        Path("examples.json"), "JSON file with prompt, cond_video and cond_audio.person1", JOB | CONTENT | UPSTREAM
    )
    image: Path | None = input_setting(None, "portrait; instead of cond_video of the JSON", JOB | CONTENT)
    video: Path | None = input_setting(None, "video to dub; instead of cond_video of the JSON", JOB | CONTENT)
    audio: Path | None = input_setting(
        None, "speech: a sound file, or a video whose sound is taken; instead of cond_audio of the JSON", JOB | CONTENT
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

    size: str = video_setting(
        "infinitetalk-480",
        "infinitetalk-480 or infinitetalk-720 (aspect as the reference's), or WIDTHxHEIGHT, snapped to 16",
        VIDEO | FRAMES | UPSTREAM,
        sampler=2,
    )
    mode: str = video_setting(
        "streaming",
        "streaming: as long as the speech; clip: one window",
        VIDEO | FRAMES | UPSTREAM,
        sampler=3,
        upstream_default="clip",
        choices=("streaming", "clip"),
    )
    frame_num: int = video_setting(
        81, "length of a window: 4n+1", VIDEO | FRAMES | UPSTREAM, sampler=4, min=5, unit="frames"
    )
    motion_frame: int = video_setting(
        9,
        "end of a window that the next one starts from; below frame_num",
        VIDEO | FRAMES | UPSTREAM,
        sampler=5,
        min=1,
        unit="frames",
    )
    max_frame_num: int | None = video_setting(
        None,
        "longest video; speech beyond it is cut (none: unlimited)",
        VIDEO | FRAMES | FOLLOWS | UPSTREAM,
        sampler=6,
        upstream_default=1000,
        min=1,
        unit="frames",
    )
    color_correction_strength: float = video_setting(
        1.0,
        "how far colours are pulled to the reference's; 0 is off",
        VIDEO | FRAMES | UPSTREAM,
        sampler=7,
        min=0,
        max=1,
    )
    whole_windows: bool = video_setting(
        False,
        "keep the frames of the last window that lie behind the end of the speech, as graphs of ComfyUI do",
        VIDEO | FRAMES,
    )
    pack: str = video_setting("upstream", packs_help(), VIDEO | FRAMES, choices=tuple(PACKS))
    resize: tuple[str, ...] | None = video_setting(
        None,
        "how the reference is resized: METHOD,FIT[,POSITION][,WIDTHxHEIGHT], in steps, such as lanczos,crop (left out: "
        "scaled bilinearly, the middle cut out, as upstream does)",
        VIDEO | FRAMES,
    )
    color_method: str = video_setting(
        "lab",
        colours_help(),
        VIDEO | FRAMES,
        choices=tuple(COLOURS),
    )
    seam_frames: int = video_setting(
        0,
        "first new frames of a window that even out the small jump where windows meet; try 4, 0 is off",
        VIDEO | FRAMES,
        sampler=23,
        min=0,
        max=32,
        unit="frames",
    )

    preset: str | None = sampling_setting(
        None, "take settings from presets/NAME.toml; flags given beside it win", VIDEO | NEUTRAL | UNSAID
    )
    sample_steps: int | None = sampling_setting(
        None,
        f"denoising steps (left out: {steps_help()})",
        VIDEO | FRAMES | FOLLOWS | UPSTREAM,
        sampler=8,
        min=1,
        max=1000,
    )
    sample_shift: float | None = sampling_setting(
        None,
        "shift of the noise schedule (left out: 7 at 480, 11 at 720)",
        VIDEO | FRAMES | FOLLOWS | UPSTREAM,
        sampler=9,
        min=0.01,
        max=1000,
    )
    sample_solver: str = sampling_setting(
        "euler",
        solvers_help(),
        VIDEO | FRAMES | UNSAID,
        sampler=10,
        choices=tuple(SOLVERS),
    )
    sample_text_guide_scale: float = sampling_setting(
        5.0, "guidance by the prompt; 1 is off and saves a pass", VIDEO | FRAMES | UPSTREAM, sampler=11, min=0
    )
    sample_audio_guide_scale: float = sampling_setting(
        4.0, "guidance by the speech; 1 is off and saves a pass", VIDEO | FRAMES | UPSTREAM, sampler=12, min=0
    )
    sample_audio_guide_steps: int | None = sampling_setting(
        None,
        "first steps with guidance by the speech, each later one saves its pass (left out: all steps)",
        VIDEO | FRAMES,
        sampler=22,
        min=1,
        unit="steps",
    )
    base_seed: int = sampling_setting(
        42, "seed of the noise; negative: a random one", VIDEO | FRAMES | UPSTREAM, sampler=13, max=2**64 - 1
    )
    noise: str = sampling_setting("window", noises_help(), VIDEO | FRAMES, choices=tuple(NOISES))
    sample_start_step: int = sampling_setting(
        0,
        "step that is the first to be taken, counted from 0; earlier ones are left out",
        VIDEO | FRAMES,
        min=0,
        unit="steps",
    )
    sample_end_step: int | None = sampling_setting(
        None,
        "step before which sampling ends, with what noise is left (left out: all steps)",
        VIDEO | FRAMES,
        min=1,
        unit="steps",
    )
    use_apg: bool = sampling_setting(
        False, "adaptive projected guidance (arXiv 2410.02416)", VIDEO | FRAMES | UPSTREAM, sampler=15
    )
    apg_momentum: float = sampling_setting(
        -0.75, "momentum of --use_apg", VIDEO | FRAMES | UPSTREAM, sampler=16, min=-1, max=1
    )
    apg_norm_threshold: float = sampling_setting(
        55.0, "largest norm of a guidance step of --use_apg", VIDEO | FRAMES | UPSTREAM, sampler=17, min=0
    )

    use_teacache: bool = speed_setting(
        False,
        "skip steps that change little (TeaCache); never acts in the first 5 steps",
        VIDEO | FRAMES | UPSTREAM,
        sampler=18,
    )
    teacache_thresh: float = speed_setting(
        0.2, "change that --use_teacache may let pass", VIDEO | FRAMES | UPSTREAM, sampler=19, min=0
    )
    offload_model: bool | None = speed_setting(
        None,
        "keep models in host memory while others run (left out: they stay on the card)",
        MODELS | NEUTRAL | UPSTREAM,
        loader=14,
    )
    t5_cpu: bool = speed_setting(False, "run the text encoder on the CPU", MODELS | FRAMES | UPSTREAM, loader=15)
    num_persistent_param_in_dit: int | None = speed_setting(
        None,
        "transformer parameters that stay on the card, the others are copied in; 0 needs least",
        MODELS | NEUTRAL | UPSTREAM,
        loader=17,
        min=0,
        unit="parameters",
    )
    blocks_to_swap: int | None = speed_setting(
        None,
        "transformer blocks that are copied in when needed (of 40)",
        MODELS | NEUTRAL | UNSAID,
        loader=16,
        min=0,
        unit="blocks",
    )
    device: str = speed_setting("auto", "auto, cpu, cuda or cuda:N", MODELS | MACHINE)
    threads: int | None = speed_setting(
        None,
        "threads that compute on a CPU; they decide last bits (left out: OMP_NUM_THREADS, else one for each core)",
        MODELS | MACHINE,
        min=1,
        max=1024,
        unit="threads",
    )
    dtype: str = speed_setting(
        "auto",
        "precision of transformer and text encoder (auto: bf16 on a GPU, fp16 on one before RTX 30xx, fp32 on a CPU)",
        MODELS | MACHINE,
        loader=11,
        choices=("auto", "bf16", "fp16", "fp32"),
    )
    vae_dtype: str = speed_setting(
        "auto",
        "precision of the VAE (auto: bf16 on a GPU from RTX 30xx on; fp32 elsewhere and with --dtype fp32)",
        VIDEO | MACHINE,
        loader=18,
        choices=("auto", "fp32", "bf16"),
    )
    vram_limit: float | None = speed_setting(
        None,
        "graphics memory to get by with; decides how many blocks stay on the card (left out: what is free)",
        VIDEO | NEUTRAL,
        loader=19,
        min=2,
        unit="GiB",
    )
    attention: str = speed_setting(
        "auto",
        attention_help(),
        MODELS | MACHINE,
        loader=12,
        choices=("auto", *ATTENTION),
    )
    kernels: str = speed_setting(
        "auto",
        "what runs between matrix products: plain PyTorch, or fused Triton kernels (auto: where they work)",
        MODELS | MACHINE,
        loader=13,
        choices=("auto", "plain", "triton"),
    )
    gpus: int = speed_setting(
        1, "cards that make one video together; their processes are started here", RUN | NEUTRAL, min=1, unit="GPUs"
    )
    ulysses_size: int = speed_setting(
        1,
        "cards that share the tokens of a pass (1: passes go apart first, and what is left is shared)",
        RUN | NEUTRAL | UPSTREAM,
        min=1,
        unit="GPUs",
    )
    ring_size: int = speed_setting(
        1, "upstream's; counts as so many times --ulysses_size here", RUN | NEUTRAL | UPSTREAM, min=1, unit="GPUs"
    )
    t5_fsdp: bool = speed_setting(
        False,
        "upstream's; the text encoder runs on the first card alone, a block at a time, with or without it",
        RUN | NEUTRAL | UPSTREAM,
    )
    dit_fsdp: bool = speed_setting(
        False,
        "upstream's; each card keeps the whole transformer here, and copies in the blocks that do not fit",
        RUN | NEUTRAL | UPSTREAM,
    )

    save_file: Path | None = output_setting(
        None, "the video to write; .mp4 is added (left out: named by size, prompt and time)", JOB | NEUTRAL | UPSTREAM
    )
    audio_save_dir: Path = output_setting(
        Path("save_audio"),
        "upstream's folder for speech embeddings; none are written here, so leave it out",
        UNREAD | NEUTRAL,
        refusal="speech embeddings are kept in memory here and written nowhere; leave it out.",
    )
    crf: int = output_setting(
        18, "H.264 quality: 0 is lossless, 51 the worst", VIDEO | FRAMES | UNSAID, sampler=20, min=0, max=51
    )
    output_sound: str = output_setting(
        "original",
        "sound of the finished video: the original, the voice that --separate_voice gives, or the speech as the model "
        "hears it (mono, 16 kHz, -23 LUFS)",
        VIDEO | FRAMES,
        choices=("original", "voice", "speech"),
    )
    overwrite: bool = output_setting(False, "replace the video if it exists", RUN | NEUTRAL)
    resume: bool = output_setting(
        False, "go on with the video of this name where an earlier run stopped, if there is one", RUN | NEUTRAL
    )
    quiet: bool = output_setting(False, "print the video's path and nothing else", RUN | NEUTRAL)
    dry_run: bool = output_setting(False, "check everything, print the plan, make nothing", RUN | NEUTRAL)

    def __post_init__(self) -> None:
        for name, expected in setting_types().items():
            value = getattr(self, name)
            object.__setattr__(self, name, expected.meant(value))

    def as_json(self) -> dict[str, Json]:
        """All values by name, as JSON has them: paths are texts, several values a list."""
        return {name: json_value(getattr(self, name)) for name in setting_types()}

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Settings:
        """The settings that have these values, of whatever types: ``validate`` judges them.

        Raises:
            TypeError: there is no setting of such a name.
        """
        return cls(**values)  # type: ignore[arg-type]  # what comes from files and flags may be anything

    def replace(self, **changes: Value) -> Settings:
        """The same settings with some changed."""
        return Settings.of({**vars(self), **changes})


@cache
def setting_infos() -> dict[str, SettingInfo]:
    """What is known about every setting, by name, in the order of ``Settings``."""
    return {field.name: field.metadata["info"] for field in dataclasses.fields(Settings)}


@cache
def names_with(roles: Role) -> tuple[str, ...]:
    """The settings that have all of these roles, in the order of ``Settings``."""
    return tuple(name for name, info in setting_infos().items() if roles in info.roles)


@cache
def names_on(node: Node) -> tuple[str, ...]:
    """The settings that have a widget on this node of ComfyUI, in the order in which their values are saved."""
    places = {name: info.widgets[node] for name, info in setting_infos().items() if node in info.widgets}
    return tuple(sorted(places, key=places.__getitem__))


@cache
def setting_types() -> dict[str, SettingType]:
    """The type of every setting, by name."""
    hints = typing.get_type_hints(Settings)
    return {field.name: SettingType.of(hints[field.name]) for field in dataclasses.fields(Settings)}
