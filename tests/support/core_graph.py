"""A graph of ComfyUI's own nodes in this process, without a server: windows by them, and by our sampler around them.

ComfyUI's modules are imported where they are used, since ``boot`` says where they are.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from ...pipeline.planning.windows import WindowSpan, window_plan
from ...pipeline.run.progress import Progress, no_progress
from ...pipeline.run.windows import Before, Window, in_turn
from ...pipeline.settings.definition import Settings


def boot(source: Path, *flags: str) -> None:
    """Make ComfyUI's modules those that its ``main.py`` would have with these flags, as far as windows need them.

    Args:
        source: folder of ``main.py``.
    """
    sys.path.insert(0, str(source))
    sys.argv = ["main.py", *flags]
    import comfy.options

    comfy.options.enable_args_parsing()
    from comfy_extras.nodes_wan import WanInfiniteTalkToVideo

    import nodes

    nodes.NODE_CLASS_MAPPINGS["WanInfiniteTalkToVideo"] = WanInfiniteTalkToVideo


@dataclass(frozen=True)
class CoreGraph:
    """What the nodes of a graph have made, and how its windows are.

    Attributes:
        model, patch, vae: as the core's loaders give them.
        words: the prompt, as the core's encoder gives it.
        seen: what CLIP gives.
        picture: [1, H, W, 3] in [0, 1].
        size: height and width.
    """

    model: Any
    patch: Any
    vae: Any
    words: list
    seen: Any
    picture: torch.Tensor
    sampler: Any
    sigmas: torch.Tensor
    size: tuple[int, int]
    length: int
    motion: int
    seed: int = 42

    def by_core(self, speech: dict, count: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Latents and new frames of windows by the core's own nodes, each with all frames so far."""
        from comfy_extras import nodes_custom_sampler as custom

        import nodes

        frames = None
        for number in range(count):
            made = nodes.NODE_CLASS_MAPPINGS["WanInfiniteTalkToVideo"].execute(
                mode={"mode": "single_speaker"},
                model=self.model,
                model_patch=self.patch,
                positive=self.words,
                negative=self.words,
                vae=self.vae,
                width=self.size[1],
                height=self.size[0],
                length=self.length,
                audio_encoder_output_1=speech,
                motion_frame_count=self.motion,
                audio_scale=1.0,
                start_image=self.picture,
                clip_vision_output=self.seen,
                previous_frames=frames,
            )
            patched, positive, _, latent, trim = made.result
            guider = custom.BasicGuider.execute(patched, positive).result[0]
            noise = custom.RandomNoise.execute(self.seed + number).result[0]
            sampled = custom.SamplerCustomAdvanced.execute(noise, guider, self.sampler, self.sigmas, latent).result[0]
            new = nodes.VAEDecode().decode(self.vae, sampled)[0][trim:]
            frames = new if frames is None else torch.cat([frames, new])
            yield sampled["samples"], new

    def spans(self, count: int) -> tuple[WindowSpan, ...]:
        return window_plan(self.length + (count - 1) * (self.length - self.motion), self.length, self.motion)

    def by_ours(
        self, speech: dict, count: int, guider: Any = None, tell: Progress = no_progress
    ) -> Iterator[tuple[Window, Before]]:
        """Windows by our sampler, without correction of colours."""
        from comfy_extras import nodes_custom_sampler as custom

        from ...nodes.comfy import core_windows

        linked = core_windows.Linked(
            guider=guider or custom.BasicGuider.execute(self.model, self.words).result[0],
            sampler=self.sampler,
            sigmas=self.sigmas,
            noise=custom.RandomNoise.execute(self.seed).result[0],
            model_patch=self.patch,
            vae=self.vae,
            clip_vision_output=self.seen,
            speech=core_windows.Speech(speech),
            audio_scale=1.0,
        )
        still = SimpleNamespace(at=lambda seconds: (0, self.picture))
        settings = Settings(
            frame_num=self.length, motion_frame=self.motion, color_correction_strength=0.0, seam_frames=0
        )
        spans = self.spans(count)
        windows = core_windows.CoreWindows(linked, still, settings, len(spans), self.size, tell)
        yield from in_turn(windows.window, spans, None)

    def watched(self) -> tuple[CoreGraph, list[torch.Tensor]]:
        """The same with a VAE that keeps what it is given to decode, and where that is kept."""
        given: list[torch.Tensor] = []
        vae = SimpleNamespace(
            encode=self.vae.encode, decode=lambda latents: given.append(latents) or self.vae.decode(latents)
        )
        return replace(self, vae=vae), given
