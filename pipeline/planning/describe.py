"""A plan in words, as ``--dry_run`` prints it."""

from __future__ import annotations

from ..facts.sizes import GIB
from ..media.audio import FPS
from ..settings.validation import preset_remarks
from .machine import describe_computation
from .run_plan import RunPlan


def describe(plan: RunPlan, windows_done: int = 0) -> str:
    """The plan as lines of text, notices at the end.

    Args:
        windows_done: how many an earlier run has made.
    """
    first, memory = plan.spans[0], plan.memory
    device = "the device" if plan.models.cards == 1 else "each device"
    window = f"{len(plan.spans)} of {first.stop - first.start} frames"
    if len(plan.spans) > 1:
        window += f", the next one {plan.spans[1].start} frames later each time"
    lines = [
        ("device", describe_machine(plan)),
        *([("cards", describe_cards(plan))] if plan.models.cards > 1 else []),
        ("picture", f"{plan.size[1]}x{plan.size[0]}"),
        ("video", f"{plan.frames} frames, {plan.frames / FPS:.2f} s at {FPS} a second"),
        *(("speaks", line) for line in ([] if plan.speakers is None else plan.speakers.told)),
        ("windows", window),
        *([("resumes", f"after window {windows_done} of {len(plan.spans)}")] if windows_done else []),
        ("a window", f"{plan.tokens} tokens, {_steps(plan.passes)}"),
        ("in all", f"{plan.forwards} passes through the transformer"),
        (
            "memory",
            f"about {memory.peak / GIB:.1f} GiB on {device} for the transformer and the VAE (estimate: weights "
            f"{memory.weights / GIB:.1f}, keys and values {memory.contexts / GIB:.1f}, "
            f"a step {memory.activations / GIB:.1f}, the VAE {memory.vae / GIB:.1f}); {describe_placement(plan)}",
        ),
        *(("warning" if notice.warning else "note", notice.text) for notice in plan.notices),
        *(("note", text) for text in preset_remarks(plan.settings)),
    ]
    return "\n".join(f"{name:<10}{text}" for name, text in lines)


def describe_machine(plan: RunPlan) -> str:
    """Where and with what the run computes."""
    return describe_computation(plan.models.machine, plan.vae)


def describe_placement(plan: RunPlan) -> str:
    """How much of the transformer stays on the device."""
    size = plan.models.size
    of_each = f", 1/{size.shares} of each," if size.shares > 1 else ""
    return f"{plan.placement.resident} of {size.blocks} blocks{of_each} stay there"


def describe_cards(plan: RunPlan) -> str:
    """How the cards share a step, and the bandwidth between them."""
    models = plan.models
    rates = "" if models.rates is None else f" ({models.rates.link / 1e9:.1f} GB/s between them)"
    return f"{models.cards} cards: {plan.divide(max(plan.passes))}{rates}"


def _steps(passes: tuple[int, ...]) -> str:
    def of(count: int) -> str:
        return f"of {count} pass{'es' * (count > 1)}"

    first, last = passes[0], passes[-1]
    if first == last:
        return f"{len(passes)} steps {of(first)}"
    return f"{len(passes)} steps, {passes.count(first)} {of(first)} and {passes.count(last)} {of(last)}"
