"""What a node's result follows from: all nodes before it with their widgets, and the files that those name.

The ids of nodes and what hangs behind a node do not count. Opens files only to hash them; knows no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import folder_paths

from ...pipeline.job.identity import weights_identity
from ...pipeline.settings.roles import Json

if TYPE_CHECKING:
    from comfy_execution.graph import DynamicPrompt

_LONGEST_NAME = 512  # of what can be the name of a file
_WHOLE = 1 << 28  # bytes of the largest file that is hashed as a whole


def origin(prompt: DynamicPrompt, node: str, apart: Collection[str]) -> dict[str, Json]:
    """What decides a node's result, by name.

    Args:
        apart: inputs of the node that do not.
    """
    files: dict[str, Path] = {}
    digests: dict[str, str] = {}

    def digest(id: str, apart: Collection[str] = ()) -> str:
        if id not in digests:
            found = prompt.get_node(id)
            inputs = {name: value for name, value in found["inputs"].items() if name not in apart}
            for name, value in inputs.items():
                if _is_link(value):
                    inputs[name] = [digest(str(value[0])), value[1]]
                elif isinstance(value, str):
                    files.update({str(path): path for path in _files(value)})
            digests[id] = _hash([found["class_type"], inputs])
        return digests[id]

    graph = digest(node, apart)
    names = {str(place): f"the file {path.name}" for place, path in files.items()}
    return {"the graph": graph, **{names[place]: _content(path) for place, path in sorted(files.items())}}


def _is_link(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int)


def _hash(content: list) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _files(name: str) -> list[Path]:
    """The files that a widget's text may mean: in the folders of models or the input folder, or by their path."""
    if not name or len(name) > _LONGEST_NAME or "\n" in name or "\0" in name:
        return []
    places = [folder_paths.get_full_path(folder, name) for folder in list(folder_paths.folder_names_and_paths)]
    if folder_paths.exists_annotated_filepath(name):
        places.append(folder_paths.get_annotated_filepath(name))
    if Path(name).is_absolute():
        places.append(name)
    found = {Path(place).resolve() for place in places if place is not None}
    return sorted(path for path in found if path.is_file())


def _content(path: Path) -> str:
    if path.stat().st_size > _WHOLE:
        return weights_identity({"": path})[""]
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
