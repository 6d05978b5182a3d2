"""The LoRA node: one LoRA and its strength; several are chained."""

from __future__ import annotations

from comfy_api.latest import io

from .comfy import files, inputs
from .comfy.sockets import LoraChain, LoraSocket


class InfiniteTalkLoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteTalkLoRA",
            display_name="LoRA (InfiniteTalk)",
            category="InfiniteTalk",
            description="A LoRA for the transformer, in any of the usual formats. One that does not fit stops the run.",
            inputs=[
                inputs.widget("lora_dir", "lora", "A file of models/loras."),
                inputs.widget("lora_scale", "scale", "Strength of the LoRA; may be negative."),
                LoraSocket.Input("previous", optional=True, tooltip="A LoRA that is applied before this one."),
            ],
            outputs=[LoraSocket.Output(display_name="lora", tooltip="For the loader, or for another LoRA.")],
        )

    @classmethod
    def execute(cls, lora: str, scale: float, previous: LoraChain | None = None) -> io.NodeOutput:
        before = () if previous is None else previous.loras
        return io.NodeOutput(LoraChain((*before, (files.path("lora_dir", lora), float(scale)))))
