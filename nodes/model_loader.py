"""The model loader node: which models, and how they run. Loads nothing; the sampler does, when it runs."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline.graphs.widgets import lora_settings, preset_loras, ruled_by_loader, setting_values
from ..pipeline.settings.definition import Settings
from ..pipeline.settings.presets import Preset
from ..pipeline.settings.roles import Node
from ..pipeline.settings.validation import resolve
from .comfy import inputs
from .comfy.files import FILES
from .comfy.schema import schema, speaking
from .comfy.sockets import LoraChain, LoraSocket, ModelChoice, ModelSocket, PresetSocket


class InfiniteTalkModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InfiniteTalkModelLoader",
            display_name="Model Loader (InfiniteTalk)",
            description="Picks the models and how they run. Where the diffusion model is a whole checkpoint folder or "
            "the demo, the encoders and the VAE may stay on none: they are looked for in it.",
            inputs=[
                PresetSocket.Input("preset", optional=True, tooltip="Rules the settings that it names, LoRA included."),
                LoraSocket.Input("lora", optional=True, tooltip="LoRAs for the transformer."),
                *inputs.widgets(Node.LOADER),
            ],
            outputs=[ModelSocket.Output(display_name="model", tooltip="For the sampler.")],
            hidden=[io.Hidden.dynprompt],
        )

    @classmethod
    @speaking
    def execute(cls, preset: Preset | None = None, lora: LoraChain | None = None, **widgets: object) -> io.NodeOutput:
        from ..pipeline.planning.run_plan import check_choice
        from .comfy import host

        values = setting_values(widgets, FILES)
        linked = inputs.linked_now(cls.hidden.dynprompt)
        if preset is not None:
            follows = lora is not None and lora.preset is not None and lora.preset.name == preset.name
            values |= ruled_by_loader(preset, linked - {"lora"} if follows else linked, FILES)
        if lora is not None:
            first = () if lora.preset is None else preset_loras(lora.preset, FILES)
            values |= lora_settings((*first, *lora.loras))
        settings = resolve(Settings.of({**values, "device": host.device()}))
        check_choice(settings)
        if preset is not None:
            cls._tell(preset, settings)
        return io.NodeOutput(ModelChoice(values, None if preset is None else preset.name))

    @classmethod
    def _tell(cls, preset: Preset, settings: Settings) -> None:
        """What must not go unseen: that another LoRA takes the place of the preset's."""
        from ..pipeline.planning.notices import stand_in_notices

        for text in stand_in_notices(preset.as_settings().lora_dir, settings.lora_dir or ()):
            from .comfy import host

            host.warn(text)
