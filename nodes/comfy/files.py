"""Model files as ComfyUI knows them: names in the lists of widgets, and their paths.

Lists are those of ComfyUI's own folders, so ``extra_model_paths.yaml`` counts. Beside single files they
offer what those lists leave out: GGUF files, and whole folders in the layout of a download. Knows nothing
of what is in a file.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import folder_paths

from ...pipeline.errors import InputError
from ...pipeline.graphs.places import ALSO, FOLDERS, posix_name

GGUF = ("dit_path", "infinitetalk_dir", "text_encoder")
TOKENIZERS = ("tokenizer.json", "spiece.model")
_SHARD = re.compile(r"-\d{5}-of-\d{5}\.(safetensors|bin|pth)$")
_WAV2VEC = ("model.safetensors", "pytorch_model.bin")


def names(setting: str) -> list[str]:
    """What a widget for this setting offers, besides its words."""
    found = {name: None for folder in FOLDERS[setting] for name in _names_in(folder, setting)}
    return list(found)


def path(setting: str, name: str) -> Path:
    """Where the file or folder of this name is.

    Raises:
        InputError: it is not in ComfyUI's folders any more.
    """
    relative = posix_name(name)
    for folder in FOLDERS[setting]:
        for root in folder_paths.get_folder_paths(folder):
            if (place := Path(root, relative)).exists():
                return place.absolute()
    where = " and ".join(f"models/{folder}" for folder in FOLDERS[setting])
    raise InputError(f"{setting}: {name!r} is not in {where}; choose another, or put the file there and press R.")


class ComfyFiles:
    """ComfyUI's own folders, for what reads a graph (``pipeline.export.exported.Files``)."""

    def model(self, setting: str, name: str) -> Path:
        try:
            return path(setting, name)
        except InputError:  # a graph of another pack may mean that pack's folder
            for also in (also for folder in FOLDERS[setting] for also in ALSO.get(folder, ())):
                if (place := Path(folder_paths.models_dir, also, posix_name(name))).exists():
                    return place.absolute()
            raise

    def preset_file(self, setting: str, name: str) -> Path | None:
        found = find(setting, name)
        return None if found is None else path(setting, found)

    def source(self, name: str) -> Path:
        return Path(folder_paths.get_annotated_filepath(name)).absolute()

    def pack_file(self, name: str) -> Path | None:
        packs = (Path(folder) for folder in folder_paths.get_folder_paths("custom_nodes"))
        return next((path.absolute() for folder in packs for path in sorted(folder.glob(f"*/{name}"))), None)

    def notes(self) -> tuple[str, ...]:
        return ()


FILES = ComfyFiles()


def find(setting: str, wanted: str) -> str | None:
    """The name in the list that ends like ``wanted`` (a path as a preset has it), as much of it as possible."""
    parts = PurePosixPath(wanted).parts
    offered = names(setting)
    for length in range(len(parts), 0, -1):
        tail = parts[-length:]
        for name in offered:
            if PurePosixPath(name.replace("\\", "/")).parts[-length:] == tail:
                return name
    return None


def _names_in(folder: str, setting: str) -> list[str]:
    if setting == "tokenizer":
        return [name for name in _listed(folder, (".json", ".model")) if PurePosixPath(_posix(name)).name in TOKENIZERS]
    files = folder_paths.get_filename_list(folder)
    if setting in GGUF:
        files = files + _listed(folder, (".gguf",))
    whole = _whole_folders(files, setting)
    single = [name for name in files if not any(_posix(name).startswith(f"{w}/") for w in whole)]
    return sorted(single + whole)


def _posix(name: str) -> str:
    return name.replace("\\", "/")


def _whole_folders(files: list[str], setting: str) -> list[str]:
    """Folders that are chosen as a whole: checkpoints in shards, and wav2vec2 with its config."""
    found = set()
    for name in files:
        file = PurePosixPath(_posix(name))
        if setting == "dit_path" and _SHARD.search(file.name) or setting == "wav2vec_dir" and file.name in _WAV2VEC:
            found.add(str(file.parent))
    return sorted(found - {"."})


def _listed(folder: str, suffixes: tuple[str, ...]) -> list[str]:
    """Files that ComfyUI does not list."""
    found = (name for root in folder_paths.get_folder_paths(folder) for name in _walked(root))
    return sorted({name for name in found if name.lower().endswith(suffixes)})


_walks: dict[str, tuple[list[str], dict[str, float]]] = {}  # what ``_walked`` found, until a folder changes


def _walked(root: str) -> list[str]:
    files, folders = _walks.get(root, ([], {}))
    if not folders or any(not Path(f).is_dir() or Path(f).stat().st_mtime != time for f, time in folders.items()):
        files, folders = folder_paths.recursive_search(root, excluded_dir_names=[".git"])
        _walks[root] = files, folders
    return files
