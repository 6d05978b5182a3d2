"""The transformer of a graph of ComfyUI-WanVideoWrapper as settings: weights, LoRAs, block swapping.

Walks up from the sampler's model. Knows the loader, the nodes between it and the sampler, and LoRA chains.
"""

from __future__ import annotations

from pathlib import Path

from ...export.exported import Files
from ...settings.roles import Values
from ..foreign.conditioning import of_kind, quantisation, weights
from ..graph import Graph, Node, feeding, linked, number, refusal, text, value, whole
from ..notes import Notes

_BLOCKS = 40
_OTHER_MODELS = ("extra_model", "vace_model", "fantasytalking_model", "fantasyportrait_model")
_SPEED_ONLY = ("WanVideoSetAttentionModeOverride",)


def model_settings(graph: Graph, node: Node, files: Files, notes: Notes) -> Values:
    """Settings for the weights of the transformer, from the node that goes into the sampler's model.

    Raises:
        InputError: a node or an input that has no equivalent.
    """
    values: Values = {}
    loras: list[tuple[Path, float]] = []
    while node.kind != "WanVideoModelLoader":
        if node.kind == "WanVideoSetBlockSwap":
            with notes.part():
                values = _block_swap(graph, feeding(graph, node, "block_swap_args")) | values
        elif node.kind == "WanVideoSetLoRAs":
            loras = _loras(graph, node, files, notes) + loras
        elif node.kind in _SPEED_ONLY:
            notes.append(f"{node}: is left out; --attention chooses the kernel.")
        else:
            sentence = "changes the model in a way that has no equivalent here; take it out"
            if "model" not in node.links:
                raise refusal(graph, node, sentence)
            notes.refuse(refusal(graph, node, sentence))
        node = linked(graph, node, "model")
    values = _loader(graph, node, files, notes) | values
    loras = _loras(graph, node, files, notes) + loras
    if loras:
        values["lora_dir"] = tuple(path for path, _ in loras)
        values["lora_scale"] = tuple(scale for _, scale in loras)
    return values


def _loader(graph: Graph, node: Node, files: Files, notes: Notes) -> Values:
    for slot in _OTHER_MODELS:
        if slot in node.links:
            notes.refuse(refusal(graph, node, f"{slot} has no equivalent here; unlink it"))
    found: Values = {}
    with notes.part():
        found["infinitetalk_dir"] = _speech_weights(graph, node, files)
    with notes.part():
        found["dit_path"] = weights(graph, node, "model", "dit_path", files)
    with notes.part():
        quantised = text(graph, node, "quantization", "disabled")
        found |= quantisation(node, text(graph, node, "model"), quantised, notes)
    with notes.part():
        _leave_out_speed(graph, node, notes)
    with notes.part():
        found |= _block_swap(graph, feeding(graph, node, "block_swap_args"))
    return found


def _speech_weights(graph: Graph, node: Node, files: Files) -> Path:
    if "multitalk_model" not in node.links:
        raise refusal(graph, node, "has no InfiniteTalk weights; link a MultiTalkModelLoader to multitalk_model")
    speech = of_kind(graph, node, "multitalk_model", "MultiTalkModelLoader")
    name = text(graph, speech, "model")
    if "infinite" not in name.lower():
        raise refusal(
            graph,
            speech,
            f"{name} are MultiTalk's weights by their name; this is a graph for MultiTalk, another model, which is not "
            "here: choose InfiniteTalk's, and mode infinitetalk, for a video of InfiniteTalk",
        )
    return weights(graph, speech, "model", "infinitetalk_dir", files)


def _leave_out_speed(graph: Graph, node: Node, notes: Notes) -> None:
    precision, attention = value(graph, node, "base_precision"), value(graph, node, "attention_mode", "sdpa")
    if precision != "bf16":
        notes.precision(
            f"base_precision {precision}",
            f"{node}: base_precision {precision} is left out; --dtype is auto: bf16, as the weights were made, where "
            "the GPU has it.",
        )
    if attention != "sdpa":
        notes.precision(
            f"attention by {attention}",
            f"{node}: attention_mode {attention} is left out, --attention is auto; it takes sage and flash too, where "
            "they are installed.",
        )
    if "compile_args" in node.links:
        notes.precision(
            "a compiled graph",
            f"{linked(graph, node, 'compile_args')}: torch.compile is left out; fused kernels are chosen by --kernels.",
        )
    if "vram_management_args" in node.links:
        notes.append(
            f"{linked(graph, node, 'vram_management_args')}: is left out; --blocks_to_swap or "
            "--num_persistent_param_in_dit save memory here."
        )


def _block_swap(graph: Graph, node: Node | None) -> Values:
    if node is None:
        return {}
    if node.kind != "WanVideoBlockSwap":
        raise refusal(graph, node, "this way of swapping blocks has no equivalent here; use WanVideoBlockSwap")
    return {"blocks_to_swap": min(whole(graph, node, "blocks_to_swap"), _BLOCKS)}


def _loras(graph: Graph, owner: Node, files: Files, notes: Notes) -> list[tuple[Path, float]]:
    """Files and strengths of a chain of LoRAs, in the order in which they are applied."""
    chain: list[tuple[Path, float]] = []
    slot = "lora"
    while (node := feeding(graph, owner, slot)) is not None:
        if "blocks" in node.links:
            notes.refuse(
                refusal(graph, node, "a LoRA for some of the blocks only has no equivalent here; unlink blocks")
            )
        if node.kind == "WanVideoLoraSelect":
            pairs = [("lora", "strength")]
        elif node.kind == "WanVideoLoraSelectMulti":
            pairs = [(f"lora_{number}", f"strength_{number}") for number in range(5)]
        else:
            raise refusal(graph, node, "this way of choosing a LoRA has no equivalent here; use WanVideoLoraSelect")
        own: list[tuple[Path, float]] = []
        for lora, strength in pairs:
            with notes.part():
                scale = float(number(graph, node, strength, 1.0))
                if text(graph, node, lora, "none") != "none" and scale != 0:
                    own.append((weights(graph, node, lora, "lora_dir", files), scale))
        chain = own + chain
        owner, slot = node, "prev_lora"
    return chain
