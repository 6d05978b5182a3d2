"""All files that a run lacks, told at once, each with the line that gets it.

One that is missing alone is refused where it is looked for, which knows more of it (``locate``). Looks whether files
are there, and whether a text encoder brings its tokenizer; what is in the others is for those who open them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..facts import downloads
from ..facts.downloads import DEFAULTS, WEIGHTS
from ..facts.published import PARTS
from ..settings.definition import Settings
from ..settings.presets import DEMO, load_preset
from .files import has_header, open_tensors
from .kinds import EMBEDDED_TOKENIZER
from .locate import USUAL_NAMES, quantised_text_encoder
from .lookup import find_file, find_tokenizer, stand_in

# part -> the one that ComfyUI's folders get instead; umT5's file has its tokenizer inside
_IN_COMFY = {"text_encoder": "umt5_fp8", "tokenizer": "umt5_fp8", "clip_vision": "clip_vision_h", "vae": "wan_vae"}
_SHARD = re.compile(r"diffusion_pytorch_model-\d+-of-(\d+)")


@dataclass(frozen=True)
class Missing:
    """What is not there.

    Attributes:
        what: the flag, and what it names.
        parts: of the table of downloads, that get it; none for a file of the user's own.
    """

    what: str
    parts: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        return f"{self.what}: {downloads.line(*self.parts) if self.parts else 'check the name'}"

    @property
    def line_in_comfyui(self) -> str:
        """The same, with the folder that ComfyUI looks in."""
        folders = dict.fromkeys(part.comfy for part in map(PARTS.__getitem__, self.parts) if part.comfy)
        if not folders:
            return f"{self.what}: choose another"
        return f"{self.line}, into {' and '.join(f'models/{folder}' for folder in folders)}; then press R"


def refuse_missing(settings: Settings, speech: bool, comfy: bool = False) -> None:
    """Refuse where more than one thing is missing.

    Args:
        speech: whether the speech encoder is looked for too.
        comfy: whether the settings are what ComfyUI's loader chooses; then parts for ComfyUI are named, by widgets.

    Raises:
        InputError: a line for each, and one that gets all.
    """
    found = missing_files(settings, speech)
    if comfy:
        found = tuple(each for missing in found for each in _by_widgets(missing))
    if len(found) < (1 if comfy else 2):
        return
    parts = list(dict.fromkeys(part for missing in found for part in missing.parts))
    ends = [f"All of them: {_command(settings, parts)}{' --comfyui DIR' if comfy else ''}"] if parts else []
    lines = [missing.line_in_comfyui if comfy else missing.line for missing in found]
    if len(lines) == 1:
        raise InputError(f"{lines[0]}.")
    raise InputError("\n  ".join([f"{len(found)} things are missing:", *lines, *ends]))


def _by_widgets(missing: Missing) -> list[Missing]:
    """The same as ComfyUI's loader has it, a line for each widget."""
    parts = [_IN_COMFY.get(part, part) for part in missing.parts if PARTS[_IN_COMFY.get(part, part)].comfy is not None]
    what = missing.what.removeprefix("--")
    if what != _nothing_at("ckpt_dir").removeprefix("--"):
        return [Missing(what.partition(", or ")[0], tuple(parts))]
    return [Missing(f"{PARTS[part].flag}: none is chosen", (part,)) for part in dict.fromkeys(parts)]


def missing_files(settings: Settings, speech: bool = True) -> tuple[Missing, ...]:
    """What these settings name, or need and do not name, and is not there."""
    s = settings
    named = s.quant_dir or s.dit_path
    whole = None if named is None else find_file(named, s.ckpt_dir)
    has_text = s.text_encoder is not None or _first(s.ckpt_dir, "text_encoder") is not None
    found: list[Missing] = []
    if s.quant_dir is not None and whole is None:
        found.append(Missing(f"--quant_dir: {s.quant_dir}", _parts(s.quant_dir, has_text)))
    elif s.quant_dir is None and s.dit_path is not None and not s.dit_path.exists():
        found.append(Missing(f"--dit_path: {s.dit_path}", _parts(s.dit_path)))
    found += _of_the_base(s, whole)
    if s.infinitetalk_dir is not None and not s.infinitetalk_dir.exists() and s.quant_dir is None:
        found.append(Missing(f"--infinitetalk_dir: {s.infinitetalk_dir}", ("infinitetalk",)))
    elif s.infinitetalk_dir is None and s.quant_dir is None and s.dit_path is None:
        found.append(Missing(_nothing_at("infinitetalk_dir"), ("infinitetalk",)))
    for lora in s.lora_dir or ():
        if find_file(lora, s.ckpt_dir) is None and stand_in(lora, s.ckpt_dir) is None:
            found.append(Missing(f"--lora_dir: {lora}", _parts(lora)))
    if speech and s.separate_voice is not None and not s.separate_voice.exists():
        found.append(Missing(f"--separate_voice: {s.separate_voice}", _parts(s.separate_voice)))
    if speech and s.silence is not None and not s.silence.exists():
        found.append(Missing(f"--silence: {s.silence}"))
    if speech and s.wav2vec_dir is None:
        found.append(Missing(_nothing_at("wav2vec_dir"), ("wav2vec",)))
    elif speech and s.wav2vec_dir is not None and not s.wav2vec_dir.exists():
        found.append(Missing(f"--wav2vec_dir: {s.wav2vec_dir}", ("wav2vec",)))
    return tuple(found)


def _nothing_at(setting: str) -> str:
    return f"--{setting}, or {WEIGHTS}/{DEFAULTS[setting]}"


def _parts(path: Path, has_text: bool = True) -> tuple[str, ...]:
    """The part of a file that is known by its name, and umT5's where that is missing and goes with MeiGen's file."""
    try:
        part = downloads.part_of(path.name)
    except KeyError:
        return ()
    return (part.name,) if has_text or part.name != "fp8" else (part.name, "t5_fp8")


def _of_the_base(s: Settings, whole: Path | None) -> list[Missing]:
    """What is not in --ckpt_dir, or not where a flag says; the folder itself, if all of it is missing."""
    given = {name: getattr(s, name) for name in (*USUAL_NAMES, "tokenizer")}
    found = [Missing(f"--{name}: {path}") for name, path in given.items() if path is not None and not path.exists()]
    wanted = [name for name in USUAL_NAMES if given[name] is None]
    text = s.text_encoder or (None if whole is None else quantised_text_encoder(s, whole))
    if text is not None or s.quant_dir is not None and whole is None and _parts(s.quant_dir, False)[1:]:
        wanted = [name for name in wanted if name != "text_encoder"]  # it lies, or will lie, beside the transformer
    if s.dit_path is None and s.quant_dir is None:
        wanted.insert(0, "transformer")
    folder = s.ckpt_dir
    lacking = [(name, lack) for name in wanted if (lack := _lack(name, folder)) is not None]
    if wanted and len(lacking) == len(wanted):
        tokenizer = () if s.tokenizer is not None or _has_tokenizer(text, s) else ("tokenizer",)
        what = _nothing_at("ckpt_dir") if folder is None else f"--ckpt_dir: {folder}"
        return [*found, Missing(what, (*(part for part, _ in lacking), *tokenizer))]
    found += [Missing(f"--ckpt_dir: {lack}", (part,)) for part, lack in lacking]
    if s.tokenizer is None and not _has_tokenizer(text or _first(folder, "text_encoder"), s):
        found.append(Missing(f"--tokenizer, or {folder}/google/umt5-xxl", ("tokenizer",)))
    return found


def _lack(name: str, folder: Path | None) -> str | None:
    """What of a part is not in the folder."""
    if folder is None or not folder.is_dir():
        return str(folder)
    if name != "transformer":
        return None if _first(folder, name) else str(folder / USUAL_NAMES[name][1][0])
    shards = sorted(folder.glob("diffusion_pytorch_model*.safetensors"))
    counted = _SHARD.match(shards[0].name) if shards else None
    if not shards or counted and len(shards) < int(counted[1]):
        return str(folder / f"diffusion_pytorch_model-*-of-{counted[1] if counted else '00007'}.safetensors")
    return None


def _first(folder: Path | None, name: str) -> Path | None:
    """The file of a model under one of its usual names."""
    places = () if folder is None else (folder / usual for usual in USUAL_NAMES[name][1])
    return next((place for place in places if place.is_file()), None)


def _has_tokenizer(text: Path | None, s: Settings) -> bool:
    """Whether a text encoder's tokenizer is beside it, in --ckpt_dir, or inside; True of what cannot be read."""
    if text is None or not text.is_file():
        folder = s.ckpt_dir
        return folder is not None and find_tokenizer(None, folder / "none", folder) is not None
    if find_tokenizer(None, text, s.ckpt_dir) is not None:
        return True
    try:
        return has_header(text, "") and EMBEDDED_TOKENIZER in open_tensors(text, "")
    except InputError:
        return True


def _command(settings: Settings, parts: list[str]) -> str:
    """The line that gets all these parts: by the preset, where it needs them all."""
    if settings.preset is not None and settings.preset != DEMO:
        preset = load_preset(settings.preset)
        if set(parts) <= {part.name for part in preset.parts()}:
            return f"infinitetalk download --preset {preset.name}"
    group = next((name for name, members in downloads.GROUPS.items() if set(members) <= set(parts)), None)
    if group is not None:
        parts = [group, *(part for part in parts if part not in downloads.GROUPS[group])]
    return f"infinitetalk download {' '.join(parts)}"
