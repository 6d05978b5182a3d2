"""Which file is which model: by flag, or by its usual name in --ckpt_dir.

Knows names and marks of files; what is in them is for the modules that load them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..facts import downloads
from ..facts.packages import TORCHAUDIO
from ..settings.definition import Settings
from .files import Tensors, has_header, open_tensors
from .kinds import DEMUCS_MARK, EMBEDDED_TOKENIZER, is_for
from .lookup import TextFiles, audio_file, find_file, find_text_files, look_up, stand_in

_BASE_MISSING = f"--ckpt_dir is missing: the folder of the Wan 2.1 base. Get it with: {downloads.BASE}"
_GET_LORA = "or leave the LoRA out (--lora_dir none) and use about 40 steps"
_SPEECH_FILES = ("model.safetensors", "pytorch_model.bin")

# flag -> what it is, and its file names: the official one, Kijai's, Comfy-Org's, the most precise first
USUAL_NAMES = {
    "text_encoder": (
        "the text encoder (umT5)",
        (
            "models_t5_umt5-xxl-enc-bf16.pth",
            "umt5-xxl-enc-bf16.safetensors",
            "umt5_xxl_fp16.safetensors",
            "umt5_xxl_fp8_e4m3fn_scaled.safetensors",
            "umt5-xxl-enc-fp8_e4m3fn.safetensors",
        ),
    ),
    "clip_vision": (
        "the image encoder (CLIP-H)",
        (
            "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
            "open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors",
            "clip_vision_h.safetensors",
            "clip_vision_vit_h.safetensors",
        ),
    ),
    "vae": (
        "the Wan VAE",
        ("Wan2.1_VAE.pth", "Wan2_1_VAE_fp32.safetensors", "Wan2_1_VAE_bf16.safetensors", "wan_2.1_vae.safetensors"),
    ),
}


@dataclass(frozen=True)
class TransformerFiles:
    """The base (a file, or the folder of its shards), InfiniteTalk's weights if given, and the LoRAs in order.

    The first two are judged when they are opened (``models.transformer.files.open_transformer``).
    """

    base: Path
    infinitetalk: Path | None
    loras: tuple[Path, ...]


@dataclass(frozen=True)
class EncoderFiles:
    """The files of the VAE and the encoders of text and picture."""

    text: TextFiles
    clip_vision: Path
    vae: Path


@dataclass(frozen=True)
class ModelFiles:
    """Paths of files or of folders that hold them."""

    transformer: TransformerFiles
    encoders: EncoderFiles
    speech_encoder: Path
    voice_separator: Path | None = None
    silence: Path | None = None

    def by_name(self) -> dict[str, Path]:
        """All of them, by what they are."""
        transformer, encoders = self.transformer, self.encoders
        paths = {
            "transformer": transformer.base,
            "infinitetalk": transformer.infinitetalk,
            **{f"LoRA {number}": path for number, path in enumerate(transformer.loras, 1)},
            "text_encoder": encoders.text.weights,
            "tokenizer": encoders.text.tokenizer,
            "clip_vision": encoders.clip_vision,
            "vae": encoders.vae,
            "speech_encoder": self.speech_encoder,
            "voice_separator": self.voice_separator,
            "silence": self.silence,
        }
        return {name: path for name, path in paths.items() if path is not None}


def find_transformer_files(settings: Settings) -> TransformerFiles:
    """The files of the transformer that these settings mean.

    Raises:
        InputError: none is given, or one that is named is nowhere.
    """
    base = settings.dit_path or settings.ckpt_dir
    if settings.quant_dir is not None:
        get = f"get MeiGen's with: {downloads.QUANTISED}, or leave it out (--quant_dir none) to quantise while loading"
        base = look_up("--quant_dir", settings.quant_dir, settings.ckpt_dir, get)
    if base is None:
        raise InputError(_BASE_MISSING)
    return TransformerFiles(
        base,
        settings.infinitetalk_dir and audio_file(settings.infinitetalk_dir),
        tuple(_lora(path, settings.ckpt_dir) for path in settings.lora_dir or ()),
    )


def _lora(path: Path, ckpt_dir: Path | None) -> Path:
    """The file of a LoRA, or the one that stands in for it."""
    if find_file(path, ckpt_dir) is None and (other := stand_in(path, ckpt_dir)) is not None:
        return other
    return look_up("--lora_dir", path, ckpt_dir, _how_to_get_lora(path))


def _how_to_get_lora(path: Path) -> str:
    if path.name not in downloads.LORAS:
        return _GET_LORA
    other = downloads.STAND_INS.get(path.name)
    instead = "" if other is None else f" or, in its place, {downloads.line(downloads.part_of(other).name)}"
    return f"get it with: {downloads.line(downloads.part_of(path.name).name)}{instead}, {_GET_LORA}"


def find_model_files(settings: Settings) -> ModelFiles:
    """The files that these settings mean.

    Raises:
        InputError: one is missing; says which flag gives it and how to download it.
    """
    transformer = find_transformer_files(settings)
    encoders, speech = find_encoder_files(settings, transformer), find_speech_encoder(settings.wav2vec_dir)
    voice, silence = find_voice_separator(settings.separate_voice), find_silence(settings.silence)
    return ModelFiles(transformer, encoders, speech, voice, silence)


def find_encoder_files(settings: Settings, transformer: TransformerFiles) -> EncoderFiles:
    """The files of VAE, text and image encoder that these settings mean.

    Args:
        transformer: beside whose file the text encoder may lie.

    Raises:
        InputError: one is missing; says which flag gives it and how to download it.
    """
    quantised = settings.text_encoder or quantised_text_encoder(settings, transformer.base)
    text_encoder = _find("text_encoder", quantised, settings.ckpt_dir)
    clip_vision = _find("clip_vision", settings.clip_vision, settings.ckpt_dir)
    vae = _find("vae", settings.vae, settings.ckpt_dir)
    return EncoderFiles(find_text_files(text_encoder, settings.tokenizer, settings.ckpt_dir), clip_vision, vae)


def find_speech_encoder(path: Path | None) -> Path:
    """The speech encoder, a folder or a file.

    Raises:
        InputError: it is missing; says how to download it.
    """
    if path is None or not path.exists():
        state = "it is missing" if path is None else f"{path} does not exist"
        raise InputError(f"--wav2vec_dir: {state}; give chinese-wav2vec2-base, get it with: {downloads.SPEECH_ENCODER}")
    _speech_weights(path)
    return path


def find_voice_separator(path: Path | None) -> Path | None:
    """The file of the network that separates the voice, if one is wanted.

    Raises:
        InputError: it is no file; says how to download one.
    """
    if path is not None and not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"--separate_voice: {path} {found}; give a file, get one with: {downloads.VOICE_SEPARATOR}")
    return path


def find_silence(path: Path | None) -> Path | None:
    """The file of silence, if one is wanted.

    Raises:
        InputError: it is no file.
    """
    if path is not None and not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(
            f"--silence: {path} {found}; give multitalk/encoded_silence.safetensors of ComfyUI-WanVideoWrapper, or "
            "leave it out to have silence computed."
        )
    return path


def quantised_text_encoder(settings: Settings, transformer: Path) -> Path | None:
    """MeiGen's quantised umT5 beside the quantised transformer, which upstream takes from there."""
    if settings.quant_dir is None:
        return None
    folder = transformer if transformer.is_dir() else transformer.parent
    beside = folder / f"t5_{settings.quant}.safetensors"
    return beside if beside.is_file() else None


def _find(flag: str, given: Path | None, folder: Path | None) -> Path:
    what, names = USUAL_NAMES[flag]
    if given is not None:
        if not given.exists():
            raise InputError(f"--{flag}: {given} does not exist; give the file of {what}, or leave it to --ckpt_dir.")
        return given
    if folder is None:
        raise InputError(_BASE_MISSING)
    if folder.is_file():
        raise InputError(
            f"--ckpt_dir: {folder} is a file; give the folder of the base (the transformer as a single file goes to "
            "--dit_path)."
        )
    if not folder.is_dir():
        raise InputError(f"--ckpt_dir: {folder} is not a folder; give that of the base, get it with: {downloads.BASE}")
    for name in names:
        if (folder / name).is_file():
            return folder / name
    if (folder / "model_index.json").is_file():
        raise InputError(
            f"--ckpt_dir: {folder} is the base in the layout of diffusers, which is not read here; get the original "
            f"with: {downloads.BASE}"
        )
    lacks = f"--ckpt_dir: {folder} lacks {what} ({names[0]})"
    near = _folder_near(folder, names)
    if near is not None:
        raise InputError(f"{lacks}; did you mean {near}?")
    raise InputError(f"{lacks}; give its file with --{flag}, or get it with: {downloads.BASE}")


def _folder_near(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The folder one level below or up to two above that holds one of these files."""
    below = sorted(path for path in folder.iterdir() if path.is_dir())
    folders = (*below, *list(folder.absolute().parents)[:2])
    return next((near for near in folders if any((near / name).is_file() for name in names)), None)


def check_encoder_files(files: EncoderFiles, headers_alone: bool = False) -> None:
    """Open VAE, text and image encoder and see that they are what they should be, without reading the weights.

    Args:
        headers_alone: do not look into files of torch.save, which have no header and need PyTorch.

    Raises:
        InputError: a file is damaged or of another kind, or there is no tokenizer.
    """
    text_encoder = _check_marks("text_encoder", files.text.weights, headers_alone)
    if files.text.tokenizer is None and text_encoder is not None and EMBEDDED_TOKENIZER not in text_encoder:
        raise InputError(
            f"--tokenizer is missing, and no tokenizer is inside or beside {files.text.weights}; get it with: "
            f"{downloads.TOKENIZER}"
        )
    _check_marks("clip_vision", files.clip_vision, headers_alone)
    _check_marks("vae", files.vae, headers_alone)


def check_speech_encoder(path: Path, headers_alone: bool = False) -> None:
    """The same for the speech encoder."""
    _check_marks("wav2vec_dir", _speech_weights(path), headers_alone)


def check_voice_separator(path: Path, headers_alone: bool = False) -> None:
    """The same for the voice separator, whose network may need a package.

    Raises:
        InputError: see ``check_encoder_files``; or the package is missing.
    """
    tensors = _check_marks("separate_voice", path, headers_alone)
    if tensors is not None and DEMUCS_MARK in tensors:
        TORCHAUDIO.require("--separate_voice with Hybrid Demucs", "a Mel-Band RoFormer file")


def check_silence(path: Path, headers_alone: bool = False) -> None:
    """The same for the file of silence."""
    _check_marks("silence", path, headers_alone)


def _check_marks(flag: str, path: Path, headers_alone: bool) -> Tensors | None:
    """The file's tensors; None if it has no header and nothing else is to be read."""
    if headers_alone and not has_header(path, f"--{flag}"):
        return None
    tensors = open_tensors(path, f"--{flag}")
    if not is_for(flag, tensors):
        some = ", ".join(list(tensors)[:3]) or "nothing"
        raise InputError(f"--{flag}: {path} is a file of another kind (it holds {some}); check the path.")
    return tensors


def _speech_weights(path: Path) -> Path:
    if path.is_file():
        return path
    for name in _SPEECH_FILES:
        if (path / name).is_file():
            return path / name
    lacks = f"--wav2vec_dir: {path} holds neither {' nor '.join(_SPEECH_FILES)}"
    near = _folder_near(path, _SPEECH_FILES)
    if near is not None:
        raise InputError(f"{lacks}; did you mean {near}?")
    raise InputError(f"{lacks}; get chinese-wav2vec2-base with: {downloads.SPEECH_ENCODER}")
