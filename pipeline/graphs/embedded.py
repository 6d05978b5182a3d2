"""Graphs that ComfyUI and VideoHelperSuite store inside the pictures and videos that they save.

Knows where the two put them (``prompt``, ``workflow``, and a ``comment`` that holds both); knows nothing of graphs.
"""

from __future__ import annotations

from pathlib import Path

import av
from PIL import Image, UnidentifiedImageError

from ..errors import InputError
from ..facts.json_text import read_json
from .graph import Graph, graph_of

PICTURES = (".png",)
_KEYS = ("prompt", "comment", "workflow")  # what was queued says more than what the page showed


def picture_graph(path: Path) -> Graph:
    """The graph that made a picture.

    Raises:
        InputError: it cannot be read, carries no graph, or its graph is none.
    """
    try:
        with Image.open(path) as picture:
            found = graph_in({str(key): value for key, value in picture.info.items()}, path)
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not a picture that can be read; give one that ComfyUI saved.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is damaged"
        raise InputError(f"{path} cannot be read: {reason}.") from error
    if found is None:
        raise InputError(f"{path} carries no graph: another program has saved it again, or ComfyUI adds none.")
    return found


def video_tags(path: Path) -> dict[str, str]:
    """What a video carries beside its streams; nothing if it cannot be read."""
    try:
        # the prefix keeps FFmpeg off the network, whatever the file is called
        with av.open(f"file:{path}", container_options={"protocol_whitelist": "file"}) as container:
            return dict(container.metadata)
    except (av.FFmpegError, ValueError, OSError):
        return {}


def graph_in(tags: dict[str, object] | dict[str, str], path: Path) -> Graph | None:
    """The graph among the texts that a file carries; None if none of them is one.

    Raises:
        InputError: it is one that cannot be followed.
    """
    lowered = {key.lower(): value for key, value in tags.items()}
    for key in _KEYS:
        found = lowered.get(key)
        if not isinstance(found, str):
            continue
        try:
            data = read_json(found)
        except ValueError:
            continue
        if isinstance(data, dict) and data:
            return graph_of(data, f"the graph in {path}")
    return None
