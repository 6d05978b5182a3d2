"""Which file a loader of a picture, a video or sound names, by a name in ComfyUI's folders or by a path.

Knows the loaders of ComfyUI itself and of VideoHelperSuite; knows nothing of what happens to their pictures.
"""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import InputError
from ...export.exported import Files
from ..graph import Graph, Node, left_open, linked, refusal, text

# loaders -> the widget that names the file
_IN_ITSELF = ("ETN_LoadImageBase64", "LoadImageFromBase64", "easy loadImageBase64")
PICTURES = {"LoadImage": "image", "LoadImageOutput": "image", "VHS_LoadImagePath": "image"} | {
    "ETN_LoadImageBase64": "image",
    "LoadImageFromBase64": "image",
    "easy loadImageBase64": "base64_data",
}
VIDEOS = {"VHS_LoadVideo": "video", "VHS_LoadVideoPath": "video", "LoadVideo": "file"}
SOUNDS = {"LoadAudio": "audio", "VHS_LoadAudio": "audio_file", "VHS_LoadAudioUpload": "audio"}
LOADERS = {**PICTURES, **VIDEOS, **SOUNDS, "GetVideoComponents": "video"}
_BY_PATH = ("VHS_LoadImagePath", "VHS_LoadVideoPath", "VHS_LoadAudio")
_ABSOLUTE = re.compile(r"[A-Za-z]:[\\/]|[\\/]")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_IN_FOLDER = re.compile(r"(input|output|temp)[\\/](.+)")


def source_of(graph: Graph, node: Node, files: Files) -> Path:
    """The file that a loader of LOADERS reads; a placeholder where a program fills its name in.

    Raises:
        InputError: it names none, or one that is not there.
    """
    if node.kind == "GetVideoComponents":
        node = linked(graph, node, "video")
        if node.kind not in VIDEOS:
            raise refusal(graph, node, "makes a video that is no file; save it and load it with LoadVideo")
    widget = LOADERS[node.kind]
    if (unfilled := left_open(node, widget)) is not None:
        return Path(unfilled)
    if node.kind in _IN_ITSELF:
        raise refusal(graph, node, "holds its picture in itself; save it as a file and load it with LoadImage")
    name = text(graph, node, widget)
    if node.kind in _BY_PATH:
        name = name.strip().strip('"')
        if _ADDRESS.match(name):
            raise refusal(graph, node, f"{widget} is an address; download it, and name the file")
        if _ABSOLUTE.match(name):
            return Path(name)
    if not name:
        raise refusal(graph, node, f"{widget} is empty; choose a name in the graph")
    if (inside := _IN_FOLDER.fullmatch(name)) and node.kind.startswith("VHS_"):
        name = inside[2] if inside[1] == "input" else f"{inside[2]} [{inside[1]}]"
    try:
        return files.source(name)
    except InputError as error:
        raise refusal(graph, node, f"{widget}: {error}") from error
