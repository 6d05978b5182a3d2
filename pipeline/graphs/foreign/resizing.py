"""Resizing nodes of other packs as ``--resize``: the same method, the same crop, the same sizes in between.

Knows KJNodes' and ComfyUI's own; sizes are for ``sizes``.
"""

from __future__ import annotations

from PIL import ImageColor

from ...facts.resizing import METHODS, PADS, POSITIONS, ResizeStep
from ..graph import Graph, Node, Origin, Unfilled, text, value, whole
from .sizes import Size, Unknown, Where, image_size

_IN_BOX = ("resize", "total_pixels")  # of ImageResizeKJv2: the picture keeps its shape, but for rounding
_OWN_SHAPE = ("ImageScaleBy", "ImageScaleToTotalPixels", "ImageScaleToMaxDimension")


def steps_of(graph: Graph, nodes: tuple[Node, ...], size: Size | None, where: Where) -> tuple[str, ...] | None:
    """The steps of ``--resize`` that these nodes are, one after the other; None where that cannot be said.

    Args:
        size: (width, height) of the video, where it is known.

    Raises:
        InputError: a value on the way is computed.
    """
    steps = []
    for node in nodes:
        if node.kind == "ImageResizeKJv2" and text(graph, node, "keep_proportion") in PADS:
            padding = _padding(graph, node)
            if padding is None:
                return None
            steps.append(str(padding))
            continue
        way = _way(graph, node)
        try:
            found = image_size(graph, Origin(node.id, 0), where)
        except Unfilled:
            if size is not None or len(nodes) > 1:
                raise
            found = (0, 0)  # that of the video, which is filled in too
        if way is None or isinstance(found, Unknown):
            return None
        method, fit, position = way
        steps.append(str(ResizeStep(method, fit, position, None if found in (size, (0, 0)) else (found[1], found[0]))))
    return tuple(steps)


def _padding(graph: Graph, node: Node) -> ResizeStep | None:
    """The step of a node that puts bars around the picture; None if its sides or its colour are none."""
    width, height = (whole(graph, node, name) for name in ("width", "height"))
    method, position = text(graph, node, "upscale_method"), text(graph, node, "crop_position", "center")
    colour = _colour(text(graph, node, "pad_color", "0, 0, 0"))
    if method not in METHODS or position not in POSITIONS or width < 1 or height < 1 or colour is None:
        return None
    multiple = max(1, whole(graph, node, "divisible_by", 2))
    return ResizeStep(method, text(graph, node, "keep_proportion"), position, (height, width), colour, multiple)


def _colour(said: str) -> tuple[int, int, int] | None:
    """Of "255, 128, 0", "1.0, 0.5, 0" or what Pillow knows, such as "#ff8000" and "orange"."""
    try:
        parts = [float(part) for part in said.split(",")] if "," in said else [*ImageColor.getrgb(said)]
    except ValueError:
        return None
    if "," in said and all(0 <= part <= 1 for part in parts):
        parts = [part * 255 for part in parts]
    levels = [int(part) for part in parts if 0 <= part < 256]
    return (levels[0], levels[1], levels[2]) if len(levels) == len(parts) == 3 else None


def _way(graph: Graph, node: Node) -> tuple[str, str, str] | None:
    """Method, fit and position of a node; None if no step is the same."""
    if node.kind == "ImageResize+":
        return None
    method, position, fit = text(graph, node, "upscale_method"), "center", "stretch"
    if node.kind == "ImageResizeKJv2":
        kept = text(graph, node, "keep_proportion")
        position = text(graph, node, "crop_position", "center") if kept == "crop" else "center"
        fit = {"crop": "crop", "stretch": "stretch", **dict.fromkeys(_IN_BOX, "stretch")}.get(kept, "")
    elif node.kind not in _OWN_SHAPE:
        fit = "middle" if value(graph, node, "crop", "disabled") == "center" else "stretch"
    return (method, fit, position) if method in METHODS and fit and position in POSITIONS else None
