"""The bundled portrait and speech as IMAGE and AUDIO, so that a template runs at once."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io

from ..pipeline.graphs.ours import PORTRAIT, SPEECH
from .comfy.schema import schema, speaking


class InfiniteTalkDemo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InfiniteTalkDemo",
            display_name="Demo Inputs (InfiniteTalk)",
            description="The portrait and the speech that come with InfiniteTalk, to try it without files of your own.",
            outputs=[
                io.Image.Output(display_name="image", tooltip="A drawn portrait, 384x384."),
                io.Audio.Output(display_name="audio", tooltip="5.6 seconds of speech."),
            ],
        )

    @classmethod
    @speaking
    def execute(cls) -> io.NodeOutput:
        from ..pipeline.media.audio import open_audio
        from ..pipeline.media.reference import open_reference

        pixels = np.array(open_reference(PORTRAIT).frame(0)).astype(np.float32) / 255  # as LoadImage
        speech = open_audio(SPEECH)
        samples = np.concatenate(list(speech.blocks()), axis=1)
        audio = {"waveform": torch.from_numpy(samples)[None], "sample_rate": speech.sample_rate}
        return io.NodeOutput(torch.from_numpy(pixels)[None], audio)
