"""Golden data for speech: upstream's loudness, resampling and wav2vec2 on a stereo wav, in fp32.

The networks are small but complete, one built like the base models and one like the large ones,
with weights that depend on their names alone. See ``tests/media/test_audio.py`` and
``tests/models/test_speech_encoder.py``.
"""

from __future__ import annotations

import json
import tempfile
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from transformers.modeling_outputs import BaseModelOutput

from .encoders import random_weights
from .upstream import import_upstream

WAV_RATE = 22_050
SECONDS = 1.2
BASE = {
    "model_type": "wav2vec2",
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "feat_extract_norm": "group",
    "do_stable_layer_norm": False,
    "conv_bias": False,
}
LARGE = BASE | {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}
CONFIGS = {"base": BASE, "large": LARGE}


def speech_like(seconds: float, sample_rate: int, seed: int = 0) -> np.ndarray:
    """Float64 [n] in [-1, 1]: a gliding, vowel-like voice in syllables, with some breath and pauses."""
    random = np.random.RandomState(seed)
    time = np.arange(int(seconds * sample_rate)) / sample_rate
    knots = np.arange(0, seconds + 0.2, 0.2)
    pitch = np.interp(time, knots, random.uniform(90, 240, knots.size))
    loudness = np.interp(time, knots, random.uniform(0, 1, knots.size) * (random.uniform(size=knots.size) > 0.2))
    brightness = np.interp(time, knots, random.uniform(0.5, 1.5, knots.size))
    phase = 2 * np.pi * np.cumsum(pitch) / sample_rate
    voice = sum(np.sin(k * phase) * k**-brightness * (k * pitch < 0.45 * sample_rate) for k in range(1, 25))
    return 0.2 * loudness * (voice + 0.3 * random.standard_normal(time.size))


def save_wav(path: Path, samples: np.ndarray, sample_rate: int) -> None:
    """16-bit wav of int16 ``samples`` [n, channels]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(samples.astype("<i2").tobytes())


def make(upstream: Path, out: Path) -> None:
    """Write ``run.speech.safetensors`` into ``out``."""
    left, right = (speech_like(SECONDS, WAV_RATE, seed) for seed in (0, 1))
    wav = (np.stack([left, 0.5 * left + 0.2 * right], axis=1) * 2**14).clip(-(2**15), 2**15 - 1).astype(np.int16)
    tensors, shapes = {"wav": torch.from_numpy(wav)}, {}
    with import_upstream(upstream), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        from generate_infinitetalk import audio_prepare_single

        save_wav(Path(folder) / "speech.wav", wav, WAV_RATE)
        speech = audio_prepare_single(str(Path(folder) / "speech.wav"))
        tensors["speech"] = torch.from_numpy(speech.astype(np.float32))
        for name, config in CONFIGS.items():
            tensors[f"features.{name}"], shapes[name] = _features(speech, config)
    metadata = {"configs": json.dumps(CONFIGS), "shapes": json.dumps(shapes), "wav_rate": str(WAV_RATE)}
    save_file(tensors, out / "speech.safetensors", metadata)


def _features(speech: np.ndarray, config: dict) -> tuple[torch.Tensor, dict[str, list[int]]]:
    """[frames, layers, channels], and the shapes of the network's weights."""
    from src.audio_analysis.wav2vec2 import Wav2Vec2Model
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

    from generate_infinitetalk import get_embedding

    # upstream asks for attention maps, which other implementations do not give
    model = Wav2Vec2Model._from_config(Wav2Vec2Config(**config), attn_implementation="eager").eval()
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(random_weights(shapes))
    features = get_embedding(speech, Wav2Vec2FeatureExtractor(), _with_hidden_states(model))
    return features.contiguous(), shapes


def _with_hidden_states(model: torch.nn.Module) -> Callable[..., BaseModelOutput]:
    """Upstream's model with the hidden states that transformers 4 returned; in 5 its encoder returns none.

    They are the embeddings, then each layer's output, the last one after the encoder's final norm.
    """
    states: list[torch.Tensor] = []
    for layer in model.encoder.layers:
        layer.register_forward_pre_hook(lambda module, inputs: states.append(inputs[0]))

    def call(values: torch.Tensor, seq_len: int, output_hidden_states: bool) -> BaseModelOutput:
        states.clear()
        output = model(values, seq_len=seq_len, output_hidden_states=output_hidden_states)
        return BaseModelOutput(hidden_states=(*states, output.last_hidden_state))

    return call
