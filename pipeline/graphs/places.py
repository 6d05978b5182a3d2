"""Where files of a graph are, outside ComfyUI: in a ComfyUI folder that the user names, or nobody knows where.

Knows the names of ComfyUI's folders and how ``extra_model_paths.yaml`` adds to them; opens no weights.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from ..errors import InputError, in_short

if TYPE_CHECKING:
    import yaml

# setting -> the folders of ComfyUI that are offered for it, in the order of search
FOLDERS: dict[str, tuple[str, ...]] = {
    "dit_path": ("diffusion_models",),
    "quant_dir": ("diffusion_models",),
    "infinitetalk_dir": ("diffusion_models", "model_patches"),
    "text_encoder": ("text_encoders",),
    "tokenizer": ("text_encoders",),
    "clip_vision": ("clip_vision",),
    "vae": ("vae",),
    "wav2vec_dir": ("audio_encoders",),
    "separate_voice": ("diffusion_models", "audio_encoders"),
    "lora_dir": ("loras",),
}
# other folders that mean the same: ComfyUI's old names, and those of other packs
ALSO = {
    "diffusion_models": ("unet",),
    "text_encoders": ("clip",),
    "audio_encoders": ("wav2vec2", "transformers"),
}
_ANNOTATION = re.compile(r"(.*) \[(input|output|temp)\]")
PORTABLE_NOTE = (
    "Paths are as under weights/, pictures and sound as in this folder, since it is not known where they are: change "
    "them, or give --comfyui DIR, the folder of ComfyUI, to have them looked up."
)


def posix_name(name: str) -> PurePosixPath:
    """A name out of a graph; graphs that were saved on Windows have backslashes.

    Raises:
        InputError: it leads out of the folder.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name):
        raise InputError(f"{name!r} is not a name in one of ComfyUI's folders; choose the file in the graph again.")
    return path


def without_annotation(name: str) -> tuple[str, str]:
    """The name of a source, and the folder it is in: ComfyUI writes "x.png [output]"."""
    match = _ANNOTATION.fullmatch(name)
    return (match[1], match[2]) if match else (name, "input")


class PortableFiles:
    """Nothing is known of where files are: relative paths, which the user can change."""

    def __init__(self) -> None:
        self._guessed = False

    def model(self, setting: str, name: str) -> Path:
        self._guessed = True
        return Path("weights", posix_name(name))

    def preset_file(self, setting: str, name: str) -> Path | None:
        return Path(name)  # the command looks it up under weights/ as well

    def source(self, name: str) -> Path:
        self._guessed = True
        return Path(posix_name(without_annotation(name)[0]))

    def pack_file(self, name: str) -> Path | None:
        return None

    def notes(self) -> tuple[str, ...]:
        return (PORTABLE_NOTE,) if self._guessed else ()


@dataclass(frozen=True)
class FolderFiles:
    """The folders of a ComfyUI.

    Args:
        base: where its ``models`` and ``input`` are, or its base directory.
    """

    base: Path

    def __post_init__(self) -> None:
        if not (self.base / "models").is_dir():
            raise InputError(f"--comfyui: {self.base} has no folder models; give the folder that ComfyUI is in.")

    def model(self, setting: str, name: str) -> Path:
        relative = posix_name(name)
        for root in self._roots(setting):
            if (root / relative).exists():
                return (root / relative).absolute()
        raise InputError(f"--{setting}: {name!r} is not in {', '.join(map(str, self._roots(setting)))}.")

    def preset_file(self, setting: str, name: str) -> Path | None:
        parts = PurePosixPath(name).parts
        found = [path for root in self._roots(setting) for path in sorted(root.rglob("*")) if path.name == parts[-1]]
        for length in range(len(parts), 0, -1):
            for path in found:
                if path.parts[-length:] == parts[-length:]:
                    return path.absolute()
        return None

    def source(self, name: str) -> Path:
        relative, folder = without_annotation(name)
        path = self.base / folder / posix_name(relative)
        if not path.is_file():
            raise InputError(f"{name!r} is not in {path.parent}; put the file there.")
        return path.absolute()

    def pack_file(self, name: str) -> Path | None:
        found = sorted(self.base.glob(f"custom_nodes/*/{name}"))
        return found[0].absolute() if found else None

    def notes(self) -> tuple[str, ...]:
        return ()

    def _roots(self, setting: str) -> tuple[Path, ...]:
        folders = [name for folder in FOLDERS[setting] for name in (folder, *ALSO.get(folder, ()))]
        usual = [self.base / "models" / folder for folder in folders]
        return (*usual, *(path for folder in folders for path in self._extra.get(folder, ())))

    @cached_property
    def _extra(self) -> dict[str, list[Path]]:
        """Folders of ``extra_model_paths.yaml``, by ComfyUI's name for them."""
        file = self.base / "extra_model_paths.yaml"
        if not file.is_file():
            return {}
        import yaml

        try:
            sections = yaml.load(file.read_text(encoding="utf-8-sig"), _plain_loader()) or {}
        except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:
            raise InputError(f"--comfyui: {file} is not YAML ({in_short(error)}).") from error
        if not isinstance(sections, dict):
            raise InputError(f"--comfyui: {file} holds a {type(sections).__name__}, sections with folders expected.")
        found: dict[str, list[Path]] = {}
        for section in sections.values():
            if not isinstance(section, dict):
                continue
            base = self.base / _own_folder(str(section.get("base_path") or ""), file)
            for folder, paths in section.items():
                if folder not in ("base_path", "is_default") and isinstance(paths, str):
                    found.setdefault(folder, []).extend(base / line for line in str(paths).split("\n") if line.strip())
        return found


def _plain_loader() -> type[yaml.SafeLoader]:
    """A loader of YAML without aliases: a few of them can stand for more than any memory holds."""
    import yaml

    class Plain(yaml.SafeLoader):
        def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("it has aliases")
            return super().compose_node(parent, index)

    return Plain


def _own_folder(text: str, file: Path) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"--comfyui: {file} has the base_path {text!r}, whose user is not known here.") from error
