"""What samples a window in a graph of ComfyUI's own nodes: samplers, schedules, and the model's way to them.

Knows KSampler and its relatives, which of their schedules is near to which of ours, LoRA and shift nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...export.exported import Files
from ...facts.solvers import SCHEDULES, SOLVERS
from ...settings.roles import Values
from ..foreign.conditioning import of_kind, quantisation, seed, weights
from ..graph import Graph, Node, linked, number, refusal, text, value, whole
from ..notes import Notes
from ..orders import CONTROL, Order

ORDERS: dict[str, tuple[Order, ...]] = {
    "KSampler": (
        {
            "seed": int,
            CONTROL: str,
            "steps": int,
            "cfg": float,
            "sampler_name": str,
            "scheduler": str,
            "denoise": float,
        },
    ),
    "KSamplerAdvanced": (
        {"add_noise": str, "noise_seed": int, CONTROL: str, "steps": int, "cfg": float, "sampler_name": str}
        | {"scheduler": str, "start_at_step": int, "end_at_step": int, "return_with_leftover_noise": str},
    ),
    "SamplerCustom": ({"add_noise": bool, "noise_seed": int, CONTROL: str, "cfg": float},),
    "RandomNoise": ({"noise_seed": int, CONTROL: str},),
    "CFGGuider": ({"cfg": float},),
    "KSamplerSelect": ({"sampler_name": str},),
    "BasicScheduler": ({"scheduler": str, "steps": int, "denoise": float},),
    "UNETLoader": ({"unet_name": str, "weight_dtype": str},),
    "UnetLoaderGGUF": ({"unet_name": str},),
    "LoraLoaderModelOnly": ({"lora_name": str, "strength_model": float},),
    "ModelSamplingSD3": ({"shift": float},),
}
STREAMED = "InfiniteTalkCoreSampler"  # ours, around the core's model
LOOPED = "InfiniteTalkAutoSampler"  # of comfyui-infinitetalk-native-sampler: all windows in one
_ALONE = ("KSampler", "KSamplerAdvanced", LOOPED)  # which say all by themselves
_KINDS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced")
_SAMPLERS = {theirs: row.name for row in SOLVERS.values() for theirs in row.comfy}
_WAN_SHIFT = 8.0  # core's for Wan 2.1 where no node sets one
_SPEED_ONLY = (
    "TorchCompileModel",
    "TorchCompileModelWanVideoV2",
    "TorchCompileModelAdvanced",
    "PathchSageAttentionKJ",
) + ("ModelPatchTorchSettings", "EasyCache", "LazyCache", "WanVideoTeaCacheKJ")


@dataclass(frozen=True)
class Sampling:
    """How a window is sampled.

    Attributes:
        node: the sampler; ``graph`` is where it is, for messages.
        model: the node that holds the sampler's model input.
    """

    graph: Graph
    node: Node
    model: Node
    settings: Values
    seed: int


def read(graph: Graph, window: Node, latent: int, notes: Notes) -> Sampling:
    """What samples the latents of a window.

    Raises:
        InputError: nothing does, or in a way that has no equivalent.
    """
    found = [
        node
        for node in graph.nodes.values()
        if any(origin.node == window.id and origin.output == latent for origin in node.links.values())
    ]
    if len(found) != 1 or found[0].kind not in _KINDS:
        fed = ", ".join(str(node) for node in found) or "nothing"
        raise refusal(graph, window, f"its latent goes into {fed}, where one of {', '.join(_KINDS)} was expected")
    (node,) = found
    guider = _holders(graph, node)[-1]
    prompt = guider.links.get("conditioning" if guider.kind == "BasicGuider" else "positive")
    if prompt is None or prompt.node != window.id:
        raise refusal(graph, guider, f"its prompt does not come through {window}; link that node's positive to it")
    return sampled_by(graph, node, notes)


def sampled_by(graph: Graph, node: Node, notes: Notes) -> Sampling:
    """How a node samples.

    Raises:
        InputError: in a way that has no equivalent.
    """
    steps_from, sampler_from, seed_from, guider = _holders(graph, node)
    settings: Values = {}
    with notes.part():
        steps = settings["sample_steps"] = whole(graph, steps_from, "steps")
        for owner, name, usual in _whole_runs(node, steps_from, steps):
            with notes.part():
                said = value(graph, owner, name, usual)
                reaches_the_end = name == "end_at_step" and isinstance(said, int | float) and said >= steps
                if said != usual and not reaches_the_end:
                    raise refusal(graph, owner, f"{name} is {said}, which has no equivalent here; set it to {usual}")
        sampler, scheduler = text(graph, sampler_from, "sampler_name"), text(graph, steps_from, "scheduler")
        settings |= _solver(graph, node, sampler, scheduler, notes)
    with notes.part():
        settings["sample_text_guide_scale"] = (
            1.0 if guider.kind == "BasicGuider" else float(number(graph, guider, "cfg"))
        )
    number_drawn = 0
    with notes.part():
        number_drawn = seed(graph, seed_from, "noise_seed" if node.kind not in ("KSampler", LOOPED) else "seed", notes)
    return Sampling(graph, node, guider, settings, number_drawn)


def _holders(graph: Graph, node: Node) -> tuple[Node, Node, Node, Node]:
    """Which nodes say the steps, the solver, the seed, and the guidance of a sampler."""
    if node.kind in _ALONE:
        return node, node, node, node
    steps = of_kind(graph, node, "sigmas", "BasicScheduler")
    sampler = of_kind(graph, node, "sampler", "KSamplerSelect")
    if node.kind == "SamplerCustom":
        return steps, sampler, node, node
    apart = node.kind == STREAMED and "guider" not in node.links  # model and prompts are linked to the sampler itself
    guider = node if apart else of_kind(graph, node, "guider", "CFGGuider", "BasicGuider")
    return steps, sampler, of_kind(graph, node, "noise", "RandomNoise"), guider


def _whole_runs(node: Node, steps_from: Node, steps: int) -> list[tuple[Node, str, object]]:
    """Which widgets must have which values if sampling goes from noise to the end."""
    if node.kind == "KSamplerAdvanced":
        return [
            (node, "add_noise", "enable"),
            (node, "start_at_step", 0),
            (node, "end_at_step", steps),
            (node, "return_with_leftover_noise", "disable"),
        ]
    ends = [(node, "add_noise", True)] if node.kind == "SamplerCustom" else []
    return [*ends, (steps_from, "denoise", 1)]


def _solver(graph: Graph, node: Node, sampler: str, scheduler: str, notes: Notes) -> Values:
    """``--sample_solver`` and ``--sample_schedule``."""
    if sampler not in _SAMPLERS:
        offered = ", ".join(_SAMPLERS)
        notes.refuse(refusal(graph, node, f"sampler {sampler} has no equivalent here; choose one of {offered}"))
    if scheduler not in SCHEDULES:
        offered = ", ".join(SCHEDULES)
        raise refusal(graph, node, f"scheduler {scheduler} has no equivalent here; choose one of {offered}")
    solver = SOLVERS[_SAMPLERS.get(sampler, "comfy:euler")]
    if solver.drops_last and node.kind not in _ALONE:
        notes.other(
            "noise levels are spaced otherwise",
            f"{node}: {sampler} has a level less here, as with KSampler.",
        )
    if solver.on_device:
        notes.near(
            "noise",
            f"{node}: {sampler} adds noise that the card draws: the same video on the same model of card alone.",
        )
    return {"sample_solver": solver.name, **({} if scheduler == "simple" else {"sample_schedule": scheduler})}


def model_settings(graph: Graph, window: Node, holder: Node, files: Files, notes: Notes) -> Values:
    """Weights, LoRAs and the shift, from the nodes between a sampler and the loader of its model.

    Args:
        holder: the node with the sampler's model input.

    Raises:
        InputError: a node that changes the model in a way that has no equivalent.
    """
    shift: float | None = None
    loras: list[tuple[Path, float]] = []
    node = linked(graph, holder, "model")
    while node.kind not in ("UNETLoader", "UnetLoaderGGUF"):
        if node.kind == "ModelSamplingSD3":
            if shift is None:
                shift = _WAN_SHIFT
                with notes.part():
                    shift = float(number(graph, node, "shift"))
        elif node.kind == "LoraLoaderModelOnly":
            with notes.part():
                scale = float(number(graph, node, "strength_model"))
                if scale != 0:
                    loras.insert(0, (weights(graph, node, "lora_name", "lora_dir", files), scale))
        elif node.kind in _SPEED_ONLY:
            notes.append(f"{node}: is left out, it changes speed.")
        elif node.id != window.id:
            sentence = "changes the model in a way that has no equivalent here; take it out"
            if "model" not in node.links:
                raise refusal(graph, node, sentence)
            notes.refuse(refusal(graph, node, sentence))
        node = linked(graph, node, "model")
    if shift is None:
        shift = _WAN_SHIFT
        notes.append(f"No node sets the shift; ComfyUI's own for Wan 2.1 is --sample_shift {_WAN_SHIFT:g}.")
    found: Values = {"sample_shift": shift}
    with notes.part():
        found["dit_path"] = weights(graph, node, "unet_name", "dit_path", files)
    with notes.part():
        name, kept = text(graph, node, "unet_name"), text(graph, node, "weight_dtype", "default")
        found |= quantisation(node, name, kept, notes)
    if loras:
        found["lora_dir"] = tuple(path for path, _ in loras)
        found["lora_scale"] = tuple(scale for _, scale in loras)
    return found
