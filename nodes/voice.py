"""The voice node: the voice out of a mix of speech and music, by the network that is chosen."""

from __future__ import annotations

import numpy as np
import torch
from comfy_api.latest import io

from ..pipeline.errors import InputError
from ..pipeline.graphs.widgets import chosen_file
from ..pipeline.settings.roles import Node
from .comfy import inputs
from .comfy.files import FILES
from .comfy.schema import schema, speaking


class InfiniteTalkVoice(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InfiniteTalkVoice",
            display_name="Separate Voice (InfiniteTalk)",
            description="Takes the voice out of music, so that the lips follow the words alone. With none the sound "
            "goes through as it is.",
            inputs=[
                io.Audio.Input("audio", tooltip="Speech or singing with music."),
                inputs.widget("separate_voice", Node.VOICE),
            ],
            outputs=[io.Audio.Output(display_name="voice", tooltip="For the audio encoder: stereo, 44.1 kHz.")],
        )

    @classmethod
    @speaking
    def execute(cls, audio: dict, separate_voice: str) -> io.NodeOutput:
        from ..pipeline.models.voice.separator import voice_in
        from ..pipeline.planning.checked import check_voice
        from ..pipeline.planning.memory import SEPARATOR_ROOM
        from .comfy import host
        from .comfy.sockets import sound_of

        path = chosen_file("separate_voice", separate_voice, FILES)
        if path is None:
            return io.NodeOutput(audio)
        check_voice(path)
        sound = sound_of(audio)
        if sound.num_samples == 0:
            raise InputError("audio: it is empty; give a file with sound in it.")
        with host.guest():
            host.make_room(SEPARATOR_ROOM)
            voice = voice_in(sound, path, host.device()).sound()
        samples = torch.from_numpy(np.ascontiguousarray(voice.samples))
        return io.NodeOutput({"waveform": samples[None], "sample_rate": voice.sample_rate})
