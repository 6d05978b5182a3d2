"""The preset node: one of presets/*.toml, which then rules the widgets that it names in loader and sampler."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline.settings.presets import load_preset, preset_names
from .comfy.schema import schema, speaking
from .comfy.sockets import LoraChain, LoraSocket, PresetSocket


class InfiniteTalkPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        titles = "; ".join(f"{name}: {load_preset(name).about.title_en}" for name in preset_names())
        return schema(
            node_id="InfiniteTalkPreset",
            display_name="Preset (InfiniteTalk)",
            description="Rules the settings that it names in the loader and the sampler it is linked to; they show its "
            "values, greyed. Without it, or with another, they show their own again. The seed stays free.",
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(preset_names()),
                    default=preset_names()[0],
                    tooltip=f"{titles}. The same as --preset of the command line.",
                )
            ],
            outputs=[
                PresetSocket.Output(display_name="preset", tooltip="For the loader and for the sampler."),
                LoraSocket.Output(display_name="lora", tooltip="For a LoRA of your own that comes after the preset's."),
            ],
        )

    @classmethod
    @speaking
    def execute(cls, preset: str) -> io.NodeOutput:
        chosen = load_preset(preset)
        return io.NodeOutput(chosen, LoraChain(preset=chosen))
