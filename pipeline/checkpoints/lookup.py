"""Finding a file by its name: as a path, in the folder where the weights are, or beside another.

The weights' folder is the one that --ckpt_dir lies in, as the guide lays it out (``weights/Wan2.1-I2V-14B-480P``
beside ``weights/InfiniteTalk`` and the LoRAs), or ``weights`` in the current folder, or in the clone. Knows nothing
about contents.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePath

from ..errors import InputError
from ..facts import downloads

TOKENIZER = "the tokenizer (--tokenizer)"
_TOKENIZER_FILES = ("tokenizer.json", "spiece.model")
_AUDIO_FILES = ("infinitetalk.safetensors", "single/infinitetalk.safetensors")
_CLONE = Path(__file__).parents[2]


def weights_folders() -> tuple[Path, ...]:
    """Where weights lie that nobody names: in the current folder, then in the clone."""
    here, clone = Path(downloads.WEIGHTS), _CLONE / downloads.WEIGHTS
    return (here,) if here.absolute() == clone else (here, clone)


def find_file(path: PurePath, ckpt_dir: Path | None) -> Path | None:
    """The file or folder that ``path`` means, or None where it is nowhere."""
    return next((place for folder in _folders(ckpt_dir) if (place := folder / path).exists()), None)


def stand_in(path: Path, ckpt_dir: Path | None) -> Path | None:
    """The LoRA that is there and may take the place of one that is not, where the guide or a preset names that one."""
    other = downloads.STAND_INS.get(path.name)
    if other is None or path.parent not in (Path(), Path(downloads.WEIGHTS)):
        return None
    return find_file(Path(other), ckpt_dir)


def _folders(ckpt_dir: Path | None) -> tuple[Path, ...]:
    beside = () if ckpt_dir is None else (ckpt_dir.absolute().parent,)
    return Path(), *beside, *weights_folders()


def look_up(flag: str, path: Path, ckpt_dir: Path | None, download: str) -> Path:
    """The file or folder that ``path`` means.

    Args:
        flag: for the message.
        download: what to say about getting it.

    Raises:
        InputError: it is nowhere; says where it was looked for.
    """
    found = find_file(path, ckpt_dir)
    if found is not None:
        return found
    looked = ", ".join(str(folder) for folder in _folders(ckpt_dir)[1:])
    raise InputError(f"{flag}: {path} does not exist, nor is it in {looked}; check the name, {download}.")


def audio_file(path: Path) -> Path:
    """The file that a folder of InfiniteTalk weights means; anything else as it is."""
    return next((path / name for name in _AUDIO_FILES if (path / name).is_file()), path)


@dataclass(frozen=True)
class TextFiles:
    """What the text encoder is read from.

    Attributes:
        weights: umT5's file.
        tokenizer: its file; None if there is none outside ``weights``.
        given: whether the user named the tokenizer, so that it replaces one inside ``weights``.
    """

    weights: Path
    tokenizer: Path | None
    given: bool = False


def find_text_files(weights: Path, tokenizer: Path | None, ckpt_dir: Path | None) -> TextFiles:
    """The text encoder with the tokenizer that goes with it; see ``find_tokenizer``."""
    return TextFiles(weights, find_tokenizer(tokenizer, weights, ckpt_dir), tokenizer is not None)


def find_tokenizer(explicit: Path | None, checkpoint: Path, ckpt_dir: Path | None) -> Path | None:
    """The tokenizer file to use, or None if there is none outside the checkpoint.

    Args:
        explicit: what the user gave: a file, or a folder that holds one; it wins.
        checkpoint: the text encoder's file; searched are the folders ``google/umt5-xxl`` and
            ``umt5-xxl`` beside it, then its own folder.
        ckpt_dir: the base model's folder, where upstream keeps ``google/umt5-xxl``.

    Raises:
        InputError: ``explicit`` is not there or holds no tokenizer.
    """
    if explicit is not None:
        return _explicit_file(explicit)
    beside = checkpoint.parent
    folders = [beside / "google" / "umt5-xxl", beside / "umt5-xxl", beside]
    if ckpt_dir is not None:
        folders.insert(0, ckpt_dir / "google" / "umt5-xxl")
    candidates = (folder / name for folder in folders for name in _TOKENIZER_FILES)
    return next((path for path in candidates if path.is_file()), None)


def _explicit_file(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{TOKENIZER}: {path} does not exist. Check the path.")
    if path.is_file():
        return path
    for name in _TOKENIZER_FILES:
        if (path / name).is_file():
            return path / name
    raise InputError(
        f"{TOKENIZER}: the folder {path} holds neither {' nor '.join(_TOKENIZER_FILES)}; get them with: "
        f"{downloads.TOKENIZER}"
    )
