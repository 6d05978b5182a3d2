"""The transformer of a graph of ComfyUI-WanVideoWrapper as settings: weights, LoRAs, block swapping.

Walks up from the sampler's model. Knows the loader, the nodes between it and the sampler, and LoRA chains.
"""

from __future__ import annotations

from ...export.exported import Files
from ...settings.roles import Values
from ..foreign.conditioning import of_kind, quantisation
from ..graph import Graph, Node, feeding, linked, number, refusal, text, value, whole

_BLOCKS = 40
_OTHER_MODELS = ("extra_model", "vace_model", "fantasytalking_model", "fantasyportrait_model")
_SPEED_ONLY = ("WanVideoSetAttentionModeOverride",)


def model_settings(graph: Graph, node: Node, files: Files, notes: list[str]) -> Values:
    """Settings for the weights of the transformer, from the node that goes into the sampler's model.

    Raises:
        InputError: a node or an input that has no equivalent.
    """
    values: Values = {}
    loras: list[tuple[str, float]] = []
    while node.kind != "WanVideoModelLoader":
        if node.kind == "WanVideoSetBlockSwap":
            values = _block_swap(graph, feeding(graph, node, "block_swap_args")) | values
        elif node.kind == "WanVideoSetLoRAs":
            loras = _loras(graph, node, "lora") + loras
        elif node.kind in _SPEED_ONLY:
            notes.append(f"{node}: is left out; --attention chooses the kernel.")
        else:
            raise refusal(graph, node, "changes the model in a way that has no equivalent here; take it out")
        node = linked(graph, node, "model")
    values = _loader(graph, node, files, notes) | values
    loras = _loras(graph, node, "lora") + loras
    if loras:
        values["lora_dir"] = tuple(files.model("lora_dir", name) for name, _ in loras)
        values["lora_scale"] = tuple(scale for _, scale in loras)
    return values


def _loader(graph: Graph, node: Node, files: Files, notes: list[str]) -> Values:
    for slot in _OTHER_MODELS:
        if slot in node.links:
            raise refusal(graph, node, f"{slot} has no equivalent here; unlink it")
    if "multitalk_model" not in node.links:
        raise refusal(graph, node, "has no InfiniteTalk weights; link a MultiTalkModelLoader to multitalk_model")
    speech = of_kind(graph, node, "multitalk_model", "MultiTalkModelLoader")
    weights = text(graph, speech, "model")
    if "infinite" not in weights.lower():
        raise refusal(graph, speech, f"{weights} are MultiTalk's weights by their name; choose InfiniteTalk's")
    base = text(graph, node, "model")
    found: Values = {
        "dit_path": files.model("dit_path", base),
        "infinitetalk_dir": files.model("infinitetalk_dir", weights),
    }
    found |= quantisation(node, base, text(graph, node, "quantization", "disabled"), notes)
    precision, attention = value(graph, node, "base_precision"), value(graph, node, "attention_mode", "sdpa")
    if precision != "bf16":
        notes.append(
            f"{node}: base_precision {precision} is left out; --dtype is auto: bf16, as the weights were made, where "
            "the GPU has it."
        )
    if attention != "sdpa":
        notes.append(
            f"{node}: attention_mode {attention} is left out, --attention is auto; it takes sage and flash too, where "
            "they are installed."
        )
    if "compile_args" in node.links:
        notes.append(
            f"{linked(graph, node, 'compile_args')}: torch.compile is left out; fused kernels are chosen by --kernels."
        )
    if "vram_management_args" in node.links:
        notes.append(
            f"{linked(graph, node, 'vram_management_args')}: is left out; --blocks_to_swap or "
            "--num_persistent_param_in_dit save memory here."
        )
    return found | _block_swap(graph, feeding(graph, node, "block_swap_args"))


def _block_swap(graph: Graph, node: Node | None) -> Values:
    if node is None:
        return {}
    if node.kind != "WanVideoBlockSwap":
        raise refusal(graph, node, "this way of swapping blocks has no equivalent here; use WanVideoBlockSwap")
    return {"blocks_to_swap": min(whole(graph, node, "blocks_to_swap"), _BLOCKS)}


def _loras(graph: Graph, owner: Node, slot: str) -> list[tuple[str, float]]:
    """Names and strengths of a chain of LoRAs, in the order in which they are applied."""
    node = feeding(graph, owner, slot)
    if node is None:
        return []
    if "blocks" in node.links:
        raise refusal(graph, node, "a LoRA for some of the blocks only has no equivalent here; unlink blocks")
    if node.kind == "WanVideoLoraSelect":
        pairs = [("lora", "strength")]
    elif node.kind == "WanVideoLoraSelectMulti":
        pairs = [(f"lora_{number}", f"strength_{number}") for number in range(5)]
    else:
        raise refusal(graph, node, "this way of choosing a LoRA has no equivalent here; use WanVideoLoraSelect")
    chain = _loras(graph, node, "prev_lora")
    for lora, strength in pairs:
        name, scale = text(graph, node, lora, "none"), float(number(graph, node, strength, 1.0))
        if name != "none" and scale != 0:
            chain.append((name, scale))
    return chain
