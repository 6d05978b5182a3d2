"""Prompts and text encoders as core's nodes have them, and what several families read and say alike.

Knows CLIPTextEncode and CLIPLoader, what makes a prompt more than a text, and which weights are 8 bits wide.
"""

from __future__ import annotations

from pathlib import Path

from ...errors import InputError
from ...export.exported import Files
from ...settings.definition import NEGATIVE_PROMPT
from ...settings.roles import Values
from ..graph import SEEDS, Graph, Node, constant_of, feeding, linked, refusal, text, value, whole
from ..notes import Notes
from ..orders import CONTROL, Order
from .prompts import core_prompt, queued_prompt

ORDERS: dict[str, tuple[Order, ...]] = {
    "CLIPTextEncode": ({"text": str},),
    "CLIPLoader": ({"clip_name": str, "type": str, "device": str},),
    "CLIPLoaderGGUF": ({"clip_name": str, "type": str},),
    "CLIPVisionLoader": ({"clip_name": str},),
}


def of_kind(graph: Graph, node: Node, slot: str, *kinds: str) -> Node:
    """The node that goes into an input, which is one of these kinds.

    Raises:
        InputError: it is another, or none.
    """
    source = linked(graph, node, slot)
    if source.kind not in kinds:
        raise refusal(graph, node, f"its {slot} comes from {source}, where {' or '.join(kinds)} was expected")
    return source


def weights(graph: Graph, node: Node, widget: str, setting: str, files: Files) -> Path:
    """The file of weights that a widget names.

    Raises:
        InputError: it names none, or one that is not there.
    """
    name = text(graph, node, widget)
    try:
        return files.model(setting, name)
    except InputError as error:
        raise refusal(graph, node, f"{widget}: {error}") from error


def seed(graph: Graph, node: Node, widget: str, notes: Notes) -> int:
    """The seed, with a note if the page changes it after every run.

    Raises:
        InputError: another node draws it.
    """
    drawn = graph.nodes.get(node.links[widget].node) if widget in node.links else None
    if drawn is not None and drawn.kind in SEEDS and constant_of(graph, drawn) is None:
        raise refusal(graph, drawn, "draws another seed for every run; type a seed of 0 or more into it")
    control = (drawn or node).values.get(CONTROL, "fixed")
    if control != "fixed":
        notes.append(
            f"{drawn or node}: the seed changes after every run ({control}); this is the one that would run next."
        )
    return whole(graph, node, widget)


def prompt_settings(graph: Graph, node: Node, positive: str, negative: str, files: Files, notes: Notes) -> Values:
    """Prompts that go into two inputs as core's conditioning, and their text encoder.

    Args:
        positive, negative: names of the inputs; the second may be unlinked.

    Raises:
        InputError: they are made by nodes that have no equivalent.
    """
    found: Values = {}
    with notes.part():
        encode = of_kind(graph, node, positive, "CLIPTextEncode")
        with notes.part():
            found["prompt"] = plain_prompt(graph, encode)
        encoder = of_kind(graph, encode, "clip", "CLIPLoader", "CLIPLoaderGGUF")
        found["text_encoder"] = weights(graph, encoder, "clip_name", "text_encoder", files)
        if value(graph, encoder, "device", "default") == "cpu":
            found["t5_cpu"] = True
    with notes.part():
        found |= _unwanted(graph, node, negative, notes)
    return found


def _unwanted(graph: Graph, node: Node, negative: str, notes: Notes) -> Values:
    if negative not in node.links:
        return negative_prompt("")
    unwanted = of_kind(graph, node, negative, "CLIPTextEncode", "ConditioningZeroOut")
    if unwanted.kind == "CLIPTextEncode":
        return negative_prompt(plain_prompt(graph, unwanted))
    notes.append(f"{unwanted}: zeros as the unwanted became an empty --negative_prompt.")
    return negative_prompt("")


def negative_prompt(unwanted: str) -> Values:
    """The setting for what is not to be seen, unless it is what it would be anyway."""
    return {} if unwanted == NEGATIVE_PROMPT else {"negative_prompt": unwanted}


def plain_prompt(graph: Graph, node: Node) -> str:
    """The text of a CLIPTextEncode, as it reaches the text encoder.

    Raises:
        InputError: it is more than a text.
    """
    prompt = text(graph, node, "text")
    source = feeding(graph, node, "text")
    try:
        if graph.saved and (source is None or source.kind == "PrimitiveNode"):
            prompt = queued_prompt(prompt)
        return core_prompt(prompt)
    except InputError as error:
        raise refusal(graph, node, str(error)) from error


def quantisation(node: Node, weights: str, asked: str, notes: Notes) -> Values:
    """``--quant`` for a transformer's file and what a loader is asked to make of it ("fp8_...", or anything else)."""
    if asked.startswith("fp8"):
        notes.precision("fp8 weights", f"{node}: {asked} became --quant fp8, which is e4m3 with a scale for each row.")
        return {"quant": "fp8"}
    if "fp8" in weights.lower() and not weights.lower().endswith(".gguf"):
        notes.precision(
            "fp8 weights", f"{node}: {weights} is fp8 by its name; --quant fp8 keeps it in 8 bits, LoRAs fused in."
        )
        return {"quant": "fp8"}
    return {}
