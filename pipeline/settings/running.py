"""How a machine makes a video: what is faster, what needs less memory, several cards, and what is written.

One part of ``definition.Settings``, which joins them; knows nothing of what is to be seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..facts.attention import ATTENTION, attention_help
from .roles import FRAMES, JOB, MACHINE, MODELS, NEUTRAL, RUN, UNREAD, UNSAID, UPSTREAM, VIDEO, setting

speed_setting = partial(setting, group="Speed and memory")
output_setting = partial(setting, group="Output")


@dataclass(frozen=True)
class SpeedSettings:
    """Where models run, and what makes them faster."""

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
    vae_tiles: int | None = speed_setting(
        None,
        "tiles of a picture in which the VAE works, which several cards share; exact, but they decide last bits (left "
        "out: as few as the card's memory allows)",
        VIDEO | MACHINE,
        loader=20,
        min=1,
        max=64,
        unit="tiles",
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
        1,
        "cards that make one video together; their processes are started here",
        RUN | NEUTRAL,
        loader=21,
        min=1,
        unit="GPUs",
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
        "the cards read the text encoder together, each its part of every block; else the first one reads it alone",
        RUN | NEUTRAL | UPSTREAM,
    )
    dit_fsdp: bool = speed_setting(
        False,
        "each card keeps its part of every transformer block, and all gather a block while the one before computes: "
        "less memory, the same frames",
        RUN | NEUTRAL | UPSTREAM,
        loader=22,
    )


@dataclass(frozen=True)
class OutputSettings:
    """What is written, and how a run behaves."""

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
