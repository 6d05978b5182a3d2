"""Resizing nodes of other packs as ``--resize``: the same method, the same crop, the same sizes in between.

Knows KJNodes' and ComfyUI's own; sizes are for ``sizes``.
"""

from __future__ import annotations

from ...facts.resizing import METHODS, POSITIONS, ResizeStep
from ..graph import Graph, Node, Origin, text, value
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
        way = _way(graph, node)
        found = image_size(graph, Origin(node.id, 0), where)
        if way is None or isinstance(found, Unknown):
            return None
        method, fit, position = way
        steps.append(str(ResizeStep(method, fit, position, None if found == size else (found[1], found[0]))))
    return tuple(steps)


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
