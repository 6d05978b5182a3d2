"""The LoRA node: one LoRA and its strength; several are chained."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline.settings.roles import Node
from .comfy import files, inputs
from .comfy.schema import schema, speaking
from .comfy.sockets import LoraChain, LoraSocket


class InfiniteTalkLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InfiniteTalkLoRA",
            display_name="LoRA (InfiniteTalk)",
            description="A LoRA for the transformer, in any of the usual formats. One that does not fit stops the run.",
            inputs=[
                inputs.widget("lora_dir", Node.LORA, "lora", "A file of models/loras."),
                inputs.widget("lora_scale", Node.LORA, "scale", "Strength of the LoRA; may be negative.", default=1.0),
                LoraSocket.Input(
                    "previous", optional=True, tooltip="What is applied before it: a LoRA, or a preset's."
                ),
            ],
            outputs=[LoraSocket.Output(display_name="lora", tooltip="For the loader, or for another LoRA.")],
        )

    @classmethod
    @speaking
    def execute(cls, lora: str, scale: float, previous: LoraChain | None = None) -> io.NodeOutput:
        before = previous or LoraChain()
        added = files.path("lora_dir", lora), float(scale)
        return io.NodeOutput(LoraChain((*before.loras, added), before.preset))
