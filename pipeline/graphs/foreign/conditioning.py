"""Prompts and text encoders as core's nodes have them, and what several families read and say alike.

Knows CLIPTextEncode and CLIPLoader, what makes a prompt more than a text, and which weights are 8 bits wide.
"""

from __future__ import annotations

import re

from ...export.exported import Files
from ...settings.definition import NEGATIVE_PROMPT
from ...settings.roles import Values
from ..graph import Graph, Node, linked, refusal, text, value
from ..orders import Order

ORDERS: dict[str, tuple[Order, ...]] = {
    "CLIPTextEncode": ({"text": str},),
    "CLIPLoader": ({"clip_name": str, "type": str, "device": str},),
    "CLIPLoaderGGUF": ({"clip_name": str, "type": str},),
    "CLIPVisionLoader": ({"clip_name": str},),
}
OTHER_NOISE = (
    "The same --base_seed draws other noise here than in that graph: the video is another take of the same. It is the "
    "same on every device."
)


def of_kind(graph: Graph, node: Node, slot: str, *kinds: str) -> Node:
    """The node that goes into an input, which is one of these kinds.

    Raises:
        InputError: it is another, or none.
    """
    source = linked(graph, node, slot)
    if source.kind not in kinds:
        raise refusal(graph, node, f"its {slot} comes from {source}, where {' or '.join(kinds)} was expected")
    return source


def prompt_settings(graph: Graph, node: Node, positive: str, negative: str, files: Files, notes: list[str]) -> Values:
    """Prompts that go into two inputs as core's conditioning, and their text encoder.

    Args:
        positive, negative: names of the inputs; the second may be unlinked.

    Raises:
        InputError: they are made by nodes that have no equivalent.
    """
    encode = of_kind(graph, node, positive, "CLIPTextEncode")
    encoder = of_kind(graph, encode, "clip", "CLIPLoader", "CLIPLoaderGGUF")
    found: Values = {
        "prompt": plain_prompt(graph, encode, text(graph, encode, "text")),
        "text_encoder": files.model("text_encoder", text(graph, encoder, "clip_name")),
    }
    if value(graph, encoder, "device", "default") == "cpu":
        found["t5_cpu"] = True
    if negative not in node.links:
        return found | negative_prompt("")
    unwanted = of_kind(graph, node, negative, "CLIPTextEncode", "ConditioningZeroOut")
    if unwanted.kind == "CLIPTextEncode":
        return found | negative_prompt(plain_prompt(graph, unwanted, text(graph, unwanted, "text")))
    notes.append(f"{unwanted}: zeros as the unwanted became an empty --negative_prompt.")
    return found | negative_prompt("")


def negative_prompt(unwanted: str) -> Values:
    """The setting for what is not to be seen, unless it is what it would be anyway."""
    return {} if unwanted == NEGATIVE_PROMPT else {"negative_prompt": unwanted}


def plain_prompt(graph: Graph, node: Node, prompt: str) -> str:
    """The prompt, which has no weights for words.

    Raises:
        InputError: it has.
    """
    if re.search(r"\(.*?:[\d.]+\)", prompt):
        raise refusal(graph, node, "its prompt has weights, (word:1.2), which have no equivalent here; take them out")
    return prompt.strip()


def quantisation(node: Node, weights: str, asked: str, notes: list[str]) -> Values:
    """``--quant`` for a transformer's file and what a loader is asked to make of it ("fp8_...", or anything else)."""
    if asked.startswith("fp8"):
        notes.append(f"{node}: {asked} became --quant fp8, which is e4m3 with a scale for each row.")
        return {"quant": "fp8"}
    if "fp8" in weights.lower() and not weights.lower().endswith(".gguf"):
        notes.append(f"{node}: {weights} is fp8 by its name; --quant fp8 keeps it in 8 bits, LoRAs fused in.")
        return {"quant": "fp8"}
    return {}
