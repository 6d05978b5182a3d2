"""All nodes, for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .audio_encoder import InfiniteTalkAudioEncoder
from .comfy import host, routes  # noqa: F401  (of which one registers itself)
from .demo import InfiniteTalkDemo
from .export import InfiniteTalkExport
from .lora import InfiniteTalkLoRA
from .model_loader import InfiniteTalkModelLoader
from .preset import InfiniteTalkPreset
from .sampler import InfiniteTalkSampler
from .voice import InfiniteTalkVoice


class InfiniteTalkExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        made: list[type[io.ComfyNode]] = [
            InfiniteTalkPreset,
            InfiniteTalkModelLoader,
            InfiniteTalkLoRA,
            InfiniteTalkVoice,
            InfiniteTalkAudioEncoder,
            InfiniteTalkSampler,
            InfiniteTalkDemo,
            InfiniteTalkExport,
        ]
        if host.core_node(host.ONE_WINDOW) is not None:
            from .core_sampler import InfiniteTalkCoreSampler

            made.append(InfiniteTalkCoreSampler)
        return made
