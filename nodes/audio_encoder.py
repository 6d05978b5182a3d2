"""The audio encoder node: speech to wav2vec2's features, its normalised form, and the number of frames."""

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
from .comfy.sockets import Speech, SpeechSocket, sound_of


class InfiniteTalkAudioEncoder(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="InfiniteTalkAudioEncoder",
            display_name="Audio Encoder (InfiniteTalk)",
            description="What the speaker will say: the sound is mixed to mono, brought to 16 kHz and -23 LUFS, and "
            "encoded by wav2vec2. The finished video carries the sound as it was, or the soundtrack that is linked.",
            inputs=[
                io.Audio.Input("audio", tooltip="The speech, of any length, rate and number of channels."),
                inputs.widget("wav2vec_dir", Node.SPEECH),
                io.Audio.Input(
                    "soundtrack", optional=True, tooltip="What the finished video carries. Left out: the audio."
                ),
            ],
            outputs=[
                SpeechSocket.Output(display_name="speech", tooltip="For the sampler."),
                io.Audio.Output(display_name="normalised", tooltip="What wav2vec2 hears: mono, 16 kHz, -23 LUFS."),
                io.Int.Output(display_name="frames", tooltip="Length of the speech in video frames, 25 a second."),
            ],
        )

    @classmethod
    @speaking
    def execute(cls, audio: dict, wav2vec_dir: str, soundtrack: dict | None = None) -> io.NodeOutput:
        from ..pipeline.media.audio import SAMPLE_RATE
        from ..pipeline.models.speech import encode_speech
        from ..pipeline.models.speech_encoder import load_speech_encoder
        from ..pipeline.planning.checked import check_speech
        from .comfy import host

        sound, carried = sound_of(audio), None if soundtrack is None else sound_of(soundtrack)
        folder = chosen_file("wav2vec_dir", wav2vec_dir, FILES)
        if folder is None:
            raise InputError("wav2vec_dir: none found; choose the speech encoder.")
        device = host.device()
        check_speech(folder)
        with host.guest():
            host.make_room(host.GIB)  # for a model of 0.4 GB and what it computes
            encoder = load_speech_encoder(folder, device)
            encoded = encode_speech(sound, encoder, carried)
            encoded.move_to("cpu")  # encodes more later where the speech is long
        normalised = {"waveform": torch.from_numpy(np.array(encoded.samples))[None, None], "sample_rate": SAMPLE_RATE}
        return io.NodeOutput(Speech(encoded, folder), normalised, encoded.num_frames)
