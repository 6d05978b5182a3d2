"""All nodes, for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .audio_encoder import InfiniteTalkAudioEncoder
from .comfy import routes  # noqa: F401  (which registers them)
from .demo import InfiniteTalkDemo
from .export import InfiniteTalkExport
from .lora import InfiniteTalkLoRA
from .model_loader import InfiniteTalkModelLoader
from .preset import InfiniteTalkPreset
from .sampler import InfiniteTalkSampler
from .voice import InfiniteTalkVoice


class InfiniteTalkExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            InfiniteTalkPreset,
            InfiniteTalkModelLoader,
            InfiniteTalkLoRA,
            InfiniteTalkVoice,
            InfiniteTalkAudioEncoder,
            InfiniteTalkSampler,
            InfiniteTalkDemo,
            InfiniteTalkExport,
        ]
