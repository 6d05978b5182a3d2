"""What ComfyUI gives a sampler beside models: the speaker's pictures, the graph to put into the video, its constants.

Knows no model and no sampler.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from comfy.cli_args import args
from comfy_api.latest import InputImpl

from ...pipeline.errors import InputError

if TYPE_CHECKING:
    import torch
    from comfy_api.latest import Input

    from ...pipeline.media.reference import Footage


def reference_of(image: torch.Tensor | None, video: Input.Video | None) -> Path | Footage:
    """What the speaker looks like: of a batch of images the first, of a video what is on screen.

    Raises:
        InputError: neither or both are linked.
    """
    from ...pipeline.media.reference import Footage

    if image is not None and video is None:
        return Footage(image, name="image")
    if video is None or image is not None:
        found = "neither" if image is None else "both"
        raise InputError(f"image and video: {found} linked; link the picture of the speaker, or the video to dub.")
    source = video.get_stream_source() if isinstance(video, InputImpl.VideoFromFile) else None
    if isinstance(source, str) and not _is_trimmed(video, source):
        return Path(source)
    parts = video.get_components()
    return Footage(parts.images, Fraction(parts.frame_rate), name="video")


def _is_trimmed(video: Input.Video, source: str) -> bool:
    """Whether it is a part of its file (newer versions of ComfyUI can cut)."""
    return abs(video.get_duration() - InputImpl.VideoFromFile(source).get_duration()) > 1e-3


def graph_tags(hidden: Any) -> dict[str, str]:
    """The graph, as ComfyUI's own nodes put it into their videos, so that it opens again from the file.

    Args:
        hidden: of a node that asks for ``prompt`` and ``extra_pnginfo``.
    """
    if args.disable_metadata:
        return {}
    # is_changed is what ComfyUI notes while it runs the graph
    prompt = {
        id: {name: value for name, value in node.items() if name != "is_changed"}
        for id, node in (hidden.prompt or {}).items()
    }
    graphs = {"prompt": prompt, **(hidden.extra_pnginfo or {})}
    return {name: json.dumps(graph) for name, graph in graphs.items() if graph is not None}


def constants_of(given: Mapping[str, object]) -> tuple:
    """The values of widgets among the inputs of a node."""
    return tuple(sorted((name, value) for name, value in given.items() if isinstance(value, str | int | float)))
