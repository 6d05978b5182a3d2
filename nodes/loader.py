"""The model loader node: which models, and how they run. Loads nothing; the sampler does, when it runs."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from comfy_api.latest import io

from ..pipeline.errors import InputError
from ..pipeline.presets import Preset
from ..pipeline.settings import Settings, validate
from . import files, inputs
from .sockets import LoraChain, LoraSocket, ModelChoice, ModelSocket, PresetSocket

MODELS = ("dit_path", "infinitetalk_dir", "text_encoder", "clip_vision", "vae", "tokenizer")
KEPT = ("quant", "quant_dir", "quant_matmul", "lora_mode", "lora_ignore_unmatched")
RUN = (
    *("dtype", "attention", "kernels", "offload_model", "t5_cpu"),
    *("blocks_to_swap", "num_persistent_param_in_dit"),
)
WIDGETS = (*MODELS, *KEPT, *RUN)
RULED = (*KEPT, *RUN, "lora_dir", "lora_scale")  # by a linked preset, where it names them


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
                *(inputs.widget(name) for name in WIDGETS),
            ],
            outputs=[ModelSocket.Output(display_name="model", tooltip="For the sampler.")],
        )

    @classmethod
    def execute(cls, preset: Preset | None = None, lora: LoraChain | None = None, **widgets: object) -> io.NodeOutput:
        values = inputs.setting_values(widgets)
        if lora is not None:
            values |= {"lora_dir": tuple(p for p, _ in lora.loras), "lora_scale": tuple(s for _, s in lora.loras)}
        if preset is not None:
            values |= ruled_values(preset, lora is not None)
        validate(Settings(**values))
        return io.NodeOutput(ModelChoice(values, None if preset is None else preset.name))


def ruled_values(preset: Preset, lora_linked: bool) -> dict[str, object]:
    """What a linked preset sets here.

    Raises:
        InputError: it brings a LoRA beside a linked one, or names files that are not there.
    """
    values = {name: value for name, value in preset.settings.items() if name in RULED}
    if "lora_dir" in values:
        if lora_linked:
            raise InputError(f"preset {preset.name} brings its own LoRA; unlink the LoRA node, or the preset.")
        values["lora_dir"] = tuple(_named("lora_dir", name, preset) for name in values["lora_dir"])
        values["lora_scale"] = tuple(float(scale) for scale in values["lora_scale"])
    if "quant_dir" in values:
        values["quant_dir"] = _named("quant_dir", values["quant_dir"], preset)
    return values


def _named(setting: str, name: str, preset: Preset) -> Path:
    """The file that a preset names."""
    found = files.find(setting, name)
    if found is None:
        folder = files.FOLDERS[setting][0]
        raise InputError(
            f"preset {preset.name} needs {PurePosixPath(name).name}, which is not in models/{folder}: put it there "
            "and press R, or unlink the preset from the loader."
        )
    return files.path(setting, found)
