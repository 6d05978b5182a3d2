"""Which file is which model: by flag, or by its usual name in --ckpt_dir.

Knows names and marks of files; what is in them is for the modules that load them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import InputError
from .models.text_encoder import EMBEDDED_TOKENIZER
from .models.tokenizer import find_tokenizer
from .models.transformer_files import audio_file
from .settings import Settings
from .weights import downloads
from .weights.files import Tensors, open_tensors

_BASE_MISSING = f"--ckpt_dir is missing: the folder of the Wan 2.1 base. Get it with: {downloads.BASE}"
_SPEECH_FILES = ("model.safetensors", "pytorch_model.bin")

# flag -> what it is, and its file names: the official one, Kijai's, Comfy-Org's
_USUAL_NAMES = {
    "text_encoder": (
        "the text encoder (umT5)",
        ("models_t5_umt5-xxl-enc-bf16.pth", "umt5-xxl-enc-bf16.safetensors", "umt5_xxl_fp16.safetensors"),
    ),
    "clip_vision": (
        "the image encoder (CLIP-H)",
        (
            "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
            "open-clip-xlm-roberta-large-vit-huge-14_visual_fp16.safetensors",
            "clip_vision_h.safetensors",
        ),
    ),
    "vae": (
        "the Wan VAE",
        ("Wan2.1_VAE.pth", "Wan2_1_VAE_fp32.safetensors", "Wan2_1_VAE_bf16.safetensors", "wan_2.1_vae.safetensors"),
    ),
}
# endings of names that a file of this kind has one of
_MARKS = {
    "text_encoder": ("token_embedding.weight", "shared.weight"),
    "clip_vision": ("visual.patch_embedding.weight", "embeddings.patch_embedding.weight"),
    "vae": ("decoder.middle.0.residual.0.gamma",),
    "wav2vec_dir": ("feature_extractor.conv_layers.0.conv.weight",),
}


@dataclass(frozen=True)
class ModelFiles:
    """Paths of files or of folders that hold them; they exist, but for the transformer's two, which are judged
    when they are opened (``models.transformer_files.open_transformer``).

    ``infinitetalk`` is None if none was given, ``tokenizer`` if none was found outside the text encoder's file.
    """

    transformer: Path
    infinitetalk: Path | None
    text_encoder: Path
    tokenizer: Path | None
    clip_vision: Path
    vae: Path
    speech_encoder: Path


def find_model_files(settings: Settings) -> ModelFiles:
    """The files that these settings mean.

    Raises:
        InputError: one is missing; says which flag gives it and how to download it.
    """
    transformer = settings.dit_path or settings.ckpt_dir
    if transformer is None:
        raise InputError(_BASE_MISSING)
    found = {flag: _find(flag, getattr(settings, flag), settings.ckpt_dir) for flag in _USUAL_NAMES}
    speech = settings.wav2vec_dir
    if speech is None or not speech.exists():
        state = "it is missing" if speech is None else f"{speech} does not exist"
        raise InputError(f"--wav2vec_dir: {state}; give chinese-wav2vec2-base, get it with: {downloads.SPEECH_ENCODER}")
    _speech_weights(speech)
    return ModelFiles(
        transformer=transformer,
        infinitetalk=settings.infinitetalk_dir and audio_file(settings.infinitetalk_dir),
        tokenizer=find_tokenizer(settings.tokenizer, found["text_encoder"], settings.ckpt_dir),
        speech_encoder=speech,
        **found,
    )


def _find(flag: str, given: Path | None, folder: Path | None) -> Path:
    what, names = _USUAL_NAMES[flag]
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


def check_model_files(files: ModelFiles) -> None:
    """Open the encoders and the VAE and see that they are what they should be, without reading the weights.

    Raises:
        InputError: a file is damaged or of another kind, or there is no tokenizer.
    """
    text_encoder = _check_marks("text_encoder", files.text_encoder)
    if files.tokenizer is None and EMBEDDED_TOKENIZER not in text_encoder:
        raise InputError(
            f"--tokenizer is missing, and no tokenizer is inside or beside {files.text_encoder}; get it with: "
            f"{downloads.TOKENIZER}"
        )
    _check_marks("clip_vision", files.clip_vision)
    _check_marks("vae", files.vae)
    _check_marks("wav2vec_dir", _speech_weights(files.speech_encoder))


def _check_marks(flag: str, path: Path) -> Tensors:
    tensors = open_tensors(path, f"--{flag}")
    if not any(name.endswith(_MARKS[flag]) for name in tensors):
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
