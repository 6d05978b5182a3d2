"""The size of the image at an output of a graph: what each loader and each node that resizes makes of it.

Reads the picture or video itself where it is found, for nodes whose result follows from it. Knows the nodes of
ComfyUI itself, KJNodes, essentials and VideoHelperSuite; says ``--size`` for a node with a width and a height.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
from PIL import Image, UnidentifiedImageError

from ...errors import InputError
from ...export.exported import Files
from ...facts.resizing import PADS
from ...facts.shares import is_share
from ...job.container import open_container
from ...settings.roles import Values
from ..graph import Graph, Node, Origin, constant_of, linked, number, refusal, text, value, whole
from ..notes import Notes
from .sources import LOADERS, source_of

Size = tuple[int, int]  # width, height

# kinds with a width and a height among their outputs -> which is which
_WIDTH_AND_HEIGHT = {
    "GetImageSize": (0, 1),
    "GetImageSize+": (0, 1),
    "GetImageSizeAndCount": (1, 2),
    "ImageResizeKJ": (1, 2),
    "ImageResizeKJv2": (1, 2),
    "ImageResize+": (1, 2),
}
# nodes whose picture is as large as the one that goes into them -> that input
SAME_SIZE = {"GetImageSizeAndCount": "image", "GetImageRangeFromBatch": "images", "ImageFromBatch": "image"}
_TURNED = (5, 6, 7, 8)  # values of EXIF's orientation that swap width and height
_ORIENTATION = 0x0112
_GRID = 8  # of VideoHelperSuite's loaders, but for some formats
_GRIDS = {"Mochi": 16, "LTXV": 32, "Hunyuan": 16, "Cosmos": 16}
_BUCKET_PIXELS = {"infinitetalk-480": 640 * 640, "infinitetalk-720": 960 * 960}
_NEAR = 0.15  # how far a number of pixels may be from a bucket's


@dataclass(frozen=True)
class Where:
    """Where files are looked for, and what is said about it."""

    files: Files
    notes: Notes


@dataclass(frozen=True)
class Unknown:
    """The size follows from a file that is not found.

    Attributes:
        source: its name.
        pixels: how many the image has, where that is known.
    """

    source: str
    pixels: float | None = None


def size(graph: Graph, node: Node, files: Files, notes: Notes) -> Values:
    """``--size`` for a node with a width and a height, typed in or computed from a picture's.

    Raises:
        InputError: they follow from a picture that is not found.
    """
    try:
        sides = _both(graph, node, ("width", "height"), Where(files, notes))
    except InputError:  # which the notes have
        return {}
    for side in sides:
        if isinstance(side, Unknown):
            return {"size": _bucket(graph, node, side, notes)}
    return {"size": f"{sides[0]}x{sides[1]}"}


def _bucket(graph: Graph, node: Node, found: Unknown, notes: Notes) -> str:
    for bucket, pixels in _BUCKET_PIXELS.items():
        if found.pixels is not None and abs(found.pixels / pixels - 1) <= _NEAR:
            notes.append(
                f"{node}: its width and height follow from {found.source}, which is not found here; --size {bucket} "
                "has about as many pixels, in the shape nearest to the picture's."
            )
            return bucket
    raise refusal(
        graph,
        node,
        f"its width and height follow from the size of {found.source}, which is not found here; give --comfyui "
        "DIR, the folder of ComfyUI that has the file, or type them in, unlinked",
    )


def _dimension(graph: Graph, node: Node, name: str, where: Where) -> int | Unknown:
    """A width or height, 0 where a node of its version has none."""
    origin = node.links.get(name)
    source = graph.nodes.get(origin.node) if origin is not None else None
    if origin is None or source is None or source.kind not in _WIDTH_AND_HEIGHT or constant_of(graph, source):
        return whole(graph, node, name, *([0] if name.startswith("custom_") else []))
    outputs = _WIDTH_AND_HEIGHT[source.kind]
    if origin.output not in outputs:
        raise refusal(graph, node, f"{name} comes from output {origin.output} of {source}, which is no width or height")
    if source.kind in _RESIZED:
        found = image_size(graph, Origin(source.id, 0), where)
    else:
        linked(graph, source, "image")
        found = image_size(graph, source.links["image"], where)
    return found if isinstance(found, Unknown) else found[outputs.index(origin.output)]


def _both(graph: Graph, node: Node, names: tuple[str, str], where: Where) -> list[int | Unknown]:
    """Two dimensions; what is wrong with either is told.

    Raises:
        InputError: one of them is computed.
    """
    found: list[int | Unknown] = []
    last: InputError | None = None
    for name in names:
        try:
            found.append(_dimension(graph, node, name, where))
        except InputError as error:
            where.notes.refuse(error)
            last = error
    if last is not None:
        raise last
    return found


def image_size(graph: Graph, origin: Origin, where: Where) -> Size | Unknown:
    """Width and height of the image at an output.

    Raises:
        InputError: a value on the way is computed, or a link comes from nowhere.
    """
    resizes: list[Node] = []
    node = graph.nodes[origin.node]
    while node.kind in _RESIZED or node.kind in SAME_SIZE:
        if node.kind in _RESIZED:
            resizes.append(node)
        node = linked(graph, node, SAME_SIZE.get(node.kind, "image"))
    found = _loaded(graph, node, where) if node.kind in LOADERS else Unknown(f"what {node} makes")
    for resize in reversed(resizes):
        found = _RESIZED[resize.kind](graph, resize, found, where)
    return found


def _loaded(graph: Graph, node: Node, where: Where) -> Size | Unknown:
    source = source_of(graph, node, where.files)
    found = file_size(source) or Unknown(str(source.name))
    if not node.kind.startswith("VHS_LoadVideo"):
        return found
    width, height = _both(graph, node, ("custom_width", "custom_height"), where)
    if isinstance(width, Unknown):
        return width
    if isinstance(height, Unknown):
        return height
    grid = _GRIDS.get(str(value(graph, node, "format", "")), _GRID)
    sides: tuple[float, float] = (width, height)
    if not (width and height):
        if isinstance(found, Unknown):
            return found
        scale = width / found[0] if width else height / found[1] if height else 1.0
        sides = (width or found[0] * scale, height or found[1] * scale)
    return int(sides[0] / grid + 0.5) * grid, int(sides[1] / grid + 0.5) * grid


def file_size(path: Path) -> Size | None:
    """Width and height of a picture or of a video's frames as they are shown; None if it is not found or neither."""
    if is_share(path) or not path.is_absolute() or not path.is_file():
        return None
    try:
        with Image.open(path) as picture:
            turned = picture.getexif().get(_ORIENTATION) in _TURNED
            return (picture.height, picture.width) if turned else picture.size
    except (UnidentifiedImageError, OSError, ValueError):
        pass
    try:
        with open_container(path) as container:
            frame = next(container.decode(video=0))
            turned = round(frame.rotation / 90) % 2 == 1
            return (frame.height, frame.width) if turned else (frame.width, frame.height)
    except (av.FFmpegError, ValueError, StopIteration, IndexError):
        return None


# ---- what each kind makes of a size


def _kj2(graph: Graph, node: Node, found: Size | Unknown, where: Where) -> Size | Unknown:
    way = text(graph, node, "keep_proportion")
    wanted = _wanted(graph, node, where)
    if isinstance(wanted, Unknown):
        return wanted
    width, height = wanted
    if way == "total_pixels":
        if isinstance(found, Unknown):
            return Unknown(found.source, width * height)
        aspect = found[0] / found[1]
        new = (int(math.sqrt(width * height * aspect)), int(math.sqrt(width * height / aspect)))
    elif way == "resize":
        if isinstance(found, Unknown):
            return found
        new = _in_box(found, width, height)
    elif way in PADS and width and height:
        return _with_bars(found, width, height, max(1, whole(graph, node, "divisible_by", 2)))
    else:
        new_or_unknown = _own_where_0(found, width, height)
        if isinstance(new_or_unknown, Unknown):
            return new_or_unknown
        new = new_or_unknown
    return _cut_to(new, whole(graph, node, "divisible_by", 2))


def _kj1(graph: Graph, node: Node, found: Size | Unknown, where: Where) -> Size | Unknown:
    if "get_image_size" in node.links:
        return image_size(graph, node.links["get_image_size"], where)
    wanted = _wanted(graph, node, where)
    if isinstance(wanted, Unknown):
        return wanted
    width, height = wanted
    if value(graph, node, "keep_proportion"):
        new = found if isinstance(found, Unknown) else _in_box(found, width, height)
    else:
        new = _own_where_0(found, width, height)
    return new if isinstance(new, Unknown) else _cut_to(new, whole(graph, node, "divisible_by", 2))


def _essentials(graph: Graph, node: Node, found: Size | Unknown, where: Where) -> Size | Unknown:
    wanted = _wanted(graph, node, where)
    if isinstance(wanted, Unknown):
        return wanted
    way, condition = text(graph, node, "method"), text(graph, node, "condition", "always")
    multiple = whole(graph, node, "multiple_of", 0)
    width, height = _cut_to(wanted, multiple)
    if way == "keep proportion":
        new = found if isinstance(found, Unknown) else _in_box(found, width, height)
    else:
        new = _own_where_0(found, width, height)
    if condition != "always":
        if isinstance(found, Unknown):
            return found
        if isinstance(new, Unknown) or not _applies(condition, found, new):
            new = found
    return new if isinstance(new, Unknown) else _cut_to(new, multiple)


def _applies(condition: str, old: Size, new: Size) -> bool:
    """Whether ImageResize+ resizes at all."""
    larger = old[0] > new[0] or old[1] > new[1]
    smaller = old[0] < new[0] or old[1] < new[1]
    area = old[0] * old[1] - new[0] * new[1]
    return {
        "downscale if bigger": larger,
        "upscale if smaller": smaller,
        "if bigger area": area > 0,
        "if smaller area": area < 0,
    }.get(condition, True)


def _scale(graph: Graph, node: Node, found: Size | Unknown, where: Where) -> Size | Unknown:
    wanted = _wanted(graph, node, where)
    if isinstance(wanted, Unknown) or all(wanted):
        return wanted
    if isinstance(found, Unknown):
        return found
    width, height = wanted
    if not width and not height:
        return found
    return (
        width or max(1, round(found[0] * height / found[1])),
        height or max(1, round(found[1] * width / found[0])),
    )


def _scale_by(graph: Graph, node: Node, found: Size | Unknown, where: Where) -> Size | Unknown:
    factor = number(graph, node, "scale_by")
    return found if isinstance(found, Unknown) else (round(found[0] * factor), round(found[1] * factor))


def _megapixels(graph: Graph, node: Node, found: Size | Unknown, where: Where) -> Size | Unknown:
    pixels = number(graph, node, "megapixels") * 1024 * 1024
    steps = max(1, whole(graph, node, "resolution_steps", 1))
    if isinstance(found, Unknown):
        return Unknown(found.source, pixels)
    factor = math.sqrt(max(0.0, pixels) / (found[0] * found[1]))
    return round(found[0] * factor / steps) * steps, round(found[1] * factor / steps) * steps


def _longest(graph: Graph, node: Node, found: Size | Unknown, where: Where) -> Size | Unknown:
    largest = whole(graph, node, "largest_size")
    if isinstance(found, Unknown):
        return found
    factor = largest / max(found)
    return round(found[0] * factor), round(found[1] * factor)


Resize = Callable[[Graph, Node, Size | Unknown, Where], Size | Unknown]
_RESIZED: dict[str, Resize] = {
    "ImageResizeKJv2": _kj2,
    "ImageResizeKJ": _kj1,
    "ImageResize+": _essentials,
    "ImageScale": _scale,
    "ImageScaleBy": _scale_by,
    "ImageScaleToTotalPixels": _megapixels,
    "ImageScaleToMaxDimension": _longest,
}
RESIZING = tuple(_RESIZED)


def _wanted(graph: Graph, node: Node, where: Where) -> Size | Unknown:
    """The width and height that a node is given, 0 for none."""
    width, height = _both(graph, node, ("width", "height"), where)
    if isinstance(width, Unknown):
        return width
    return height if isinstance(height, Unknown) else (max(0, width), max(0, height))


def _in_box(found: Size, width: int, height: int) -> Size:
    """As large as fits into a box, undistorted; a side of 0 does not limit."""
    limits = [limit / side for limit, side in zip((width, height), found, strict=True) if limit]
    ratio = min(limits, default=1.0)
    return round(found[0] * ratio), round(found[1] * ratio)


def _with_bars(found: Size | Unknown, width: int, height: int, multiple: int) -> Size | Unknown:
    """What a picture between bars comes to: its sides are cut to a multiple, and then all of it is filled up to one."""
    if isinstance(found, Unknown):
        even = width % multiple == 0 and height % multiple == 0
        return (width, height) if even else Unknown(found.source, width * height)
    inner = _in_box(found, width, height)
    cut = _cut_to(inner, multiple)
    if inner == (width, height):
        return cut
    sides = (cut[0] + width - inner[0], cut[1] + height - inner[1])
    return -(-sides[0] // multiple) * multiple, -(-sides[1] // multiple) * multiple


def _own_where_0(found: Size | Unknown, width: int, height: int) -> Size | Unknown:
    if width and height:
        return width, height
    return found if isinstance(found, Unknown) else (width or found[0], height or found[1])


def _cut_to(found: Size, multiple: int) -> Size:
    """Down to a multiple of a number."""
    return (found[0] - found[0] % multiple, found[1] - found[1] % multiple) if multiple > 1 else found
