"""Which published parts a run needs, which part a file is of, and how sentences tell where to get them.

What is published is in ``published``. Knows nothing of what is on this machine, and fetches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

from .published import BASE_FOLDER, INFINITETALK_FILE, PARTS, SPEECH_FOLDER, Part

DEFAULTS = {"ckpt_dir": BASE_FOLDER, "infinitetalk_dir": INFINITETALK_FILE, "wav2vec_dir": SPEECH_FOLDER}
WEIGHTS = "weights"
GROUPS = {"base": ("transformer", "text_encoder", "clip_vision", "vae", "tokenizer")}

LORAS = frozenset(file.name for part in PARTS.values() if part.flag == "lora_dir" for file in part.files)
# A LoRA that may take another's place: the guide's advice on a missing LoRA fetches it.
STAND_INS = {PARTS["lightx2v"].files[0].name: PARTS["lightx2v_t2v"].files[0].name}

_ENCODERS = "clip_vision", "vae", "tokenizer", "wav2vec"
_COMFY_ENCODERS = "umt5_fp8", "clip_vision_h", "wan_vae", "wav2vec_fp16"


def needed(quantised: str | None, loras: Iterable[str], comfy: bool = False) -> tuple[Part, ...]:
    """What a run needs, in the layout of the weights folder or of ComfyUI.

    Args:
        quantised: the file of the quantised transformer under the weights folder, as presets name it.
        loras: names of LoRA files.

    Raises:
        KeyError: a file is in no part.
    """
    names: tuple[str, ...]
    if comfy:
        names = (
            ("transformer", "text_encoder", "clip_vision", "vae", "tokenizer", "infinitetalk", "wav2vec_fp16")
            if quantised is None
            else (part_of(quantised).name, *_COMFY_ENCODERS)
        )
    elif quantised is None:
        names = ("transformer", "text_encoder", "infinitetalk", *_ENCODERS)
    else:
        names = (part_of(quantised).name, "t5_fp8", *_ENCODERS)
    return (*(PARTS[name] for name in names), *(part_of(lora) for lora in loras))


def part_of(name: str) -> Part:
    """The part that a file is of, by its name or its path.

    Raises:
        KeyError: it is of none.
    """
    wanted = PurePosixPath(name).name
    for part in PARTS.values():
        if any(file.name == wanted for file in part.files):
            return part
    raise KeyError(name)


def line(*names: str) -> str:
    """How parts are fetched, and where a browser finds them, for sentences."""
    parts = [PARTS[single] for name in names for single in GROUPS.get(name, (name,))]
    addresses = dict.fromkeys(part.address for part in parts)
    return f"infinitetalk download {' '.join(names)} ({', '.join(addresses)})"


BASE, TOKENIZER, INFINITETALK, SPEECH_ENCODER = (
    line(name) for name in ("base", "tokenizer", "infinitetalk", "wav2vec")
)
QUANTISED = line("fp8", "t5_fp8")
VOICE_SEPARATOR = (
    "curl -LO https://download.pytorch.org/torchaudio/models/hdemucs_high_trained.pt, or a Mel-Band RoFormer with: "
    + line("voice")
)
