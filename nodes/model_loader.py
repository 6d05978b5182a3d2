"""The model loader node: which models, and how they run. Loads nothing; the sampler does, when it runs."""

from __future__ import annotations

from comfy_api.latest import io

from ..pipeline.graphs.widgets import LOADER, ruled_by_loader, setting_values
from ..pipeline.settings.definition import Settings
from ..pipeline.settings.presets import Preset
from ..pipeline.settings.validation import validate
from .comfy import inputs
from .comfy.files import FILES
from .comfy.sockets import LoraChain, LoraSocket, ModelChoice, ModelSocket, PresetSocket


class InfiniteTalkModelLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="InfiniteTalkModelLoader",
            display_name="Model Loader (InfiniteTalk)",
            category="InfiniteTalk",
            description="Picks the models and how they run. Where dit_path is a whole checkpoint folder or the demo, "
            "the encoders and the VAE may stay on none: they are looked for in it.",
            inputs=[
                PresetSocket.Input("preset", optional=True, tooltip="Rules the settings that it names, LoRA included."),
                LoraSocket.Input("lora", optional=True, tooltip="LoRAs for the transformer."),
                *(inputs.widget(name) for name in LOADER),
            ],
            outputs=[ModelSocket.Output(display_name="model", tooltip="For the sampler.")],
            hidden=[io.Hidden.dynprompt],
        )

    @classmethod
    def execute(cls, preset: Preset | None = None, lora: LoraChain | None = None, **widgets: object) -> io.NodeOutput:
        from ..pipeline.planning.checked import check_models

        values = setting_values(widgets, FILES)
        if lora is not None:
            values |= {"lora_dir": tuple(p for p, _ in lora.loras), "lora_scale": tuple(s for _, s in lora.loras)}
        if preset is not None:
            values |= ruled_by_loader(preset, inputs.linked_now(cls.hidden.dynprompt), FILES)
        settings = validate(Settings.of(values))
        check_models(settings, comfy=True)
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
