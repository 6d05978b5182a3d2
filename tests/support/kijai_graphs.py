"""A graph of ComfyUI-WanVideoWrapper in both formats, changed and exported."""

from ...pipeline.graphs.graph import graph_of
from ...pipeline.graphs.places import PortableFiles
from ...pipeline.graphs.read import settings_of
from .places import GRAPHS

UI, API = GRAPHS / "kijai_image.json", GRAPHS / "kijai_image_api.json"


def export(data, node=None):
    return settings_of(graph_of(data, "graph.json"), PortableFiles(), node)


def of(data, kind):
    """The node of a kind, in either format."""
    if "nodes" in data:
        return next(node for node in data["nodes"] if node["type"] == kind)
    return next(node for node in data.values() if node["class_type"] == kind)


def changed(api, kind, **inputs):
    of(api, kind)["inputs"].update(inputs)
    return api


def is_told(error):
    """Whether a refusal is one sentence, or a list of them, a line each."""
    first, *others = str(error).split("\n")
    listed = first.endswith(" things in it cannot be part of a command:")
    return listed == bool(others) and all(line.startswith("- ") and line.endswith(".") for line in others)
