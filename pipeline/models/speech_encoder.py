"""wav2vec 2.0: speech to the features of all its layers at the rate of the video frames.

The network is transformers' own ``Wav2Vec2Model`` (Baevski et al., 2020). Its convolutions give 50
features a second; they are interpolated to 25 before the transformer, as in upstream's
src/audio_analysis/wav2vec2.py. Attention is quadratic in the length, so only clips up to two minutes
are encoded whole; longer ones in overlapping chunks, each made when it is asked for. Knows nothing
about sound files, nor about what the features drive.
"""

from __future__ import annotations

import contextlib
import functools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..checkpoints.files import Tensors, open_tensors
from ..checkpoints.load import fill
from ..errors import LONGEST, InputError, in_short
from ..facts import downloads
from ..facts.json_text import read_json
from ..facts.packs import UPSTREAM, PackFacts
from ..media.audio import FPS, SAMPLE_RATE, frame_count
from ..residency.slab import HostWeights
from .speech_features import SpeechFeatures, late_count, late_frames

if TYPE_CHECKING:  # seconds to import, and not needed where nothing is loaded
    from transformers import Wav2Vec2Config, Wav2Vec2Model

WHAT = "wav2vec2 (--wav2vec_dir)"
DOWNLOAD = downloads.SPEECH_ENCODER
SILENCE_SECONDS = 8
PIECE = 60 * SAMPLE_RATE  # samples at a time, while their statistics are taken
NORM_PIECE = 1 << 15  # outputs of the first convolution at a time, while its statistics are taken
CONVOLVED = 500  # features of the last convolution at a time; the large ones between take 20 MB a second
_Statistics = tuple[Tensor, Tensor] | None  # mean and variance of the group norm


@dataclass(frozen=True)
class Chunking:
    """How long speech is cut up, in video frames.

    A chunk is encoded with ``context`` more frames on either side, which are then dropped. Its
    convolutional features are those of the whole clip (the statistics of the group norm are taken
    over the whole clip, and the frames are interpolated at the whole clip's positions); what a
    chunk lacks is attention to anything beyond its context.
    """

    whole: int = 120 * FPS
    core: int = 60 * FPS
    context: int = 10 * FPS


@dataclass(frozen=True)
class _Clip:
    """Speech and its normalisation, which is applied to a part at a time: the whole may be a file of hours."""

    speech: np.ndarray
    mean: float = 0.0
    deviation: float = 1.0

    def samples(self, start: int = 0, stop: int | None = None) -> Tensor:
        return torch.from_numpy(np.asarray((self.speech[start:stop] - self.mean) / self.deviation, np.float32))


class SpeechEncoder:
    """wav2vec2 and what it needs to know about its input.

    Args:
        model: in eval mode, float32.
        normalise: give it speech of zero mean and unit variance (``do_normalize`` of its preprocessor_config.json);
            None where nothing is said of that.
        chunking: how long speech is cut up.
    """

    def __init__(self, model: Wav2Vec2Model, normalise: bool | None = True, chunking: Chunking | None = None) -> None:
        self.model = model
        self.normalise = normalise
        self.chunking = chunking or Chunking()
        self._weights = HostWeights()
        self.layers: int = model.config.num_hidden_layers
        self.channels: int = model.config.hidden_size
        self._hop = math.prod(model.config.conv_stride)
        self._receptive_field = _receptive_field(model.config)

    def move_to(self, device: torch.device | str) -> None:
        """Move the weights."""
        self._weights.move([self.model], device)

    def encode(self, speech: np.ndarray, pack: PackFacts = UPSTREAM) -> SpeechFeatures:
        """Features of ``speech``, float32 [samples] at 16 kHz, for its ``frame_count`` video frames, as a pack does.

        Up to two minutes are encoded at once, as upstream does; longer speech by chunks of a minute
        with ten seconds of context on either side, when frames of a chunk are asked for, so that
        time is linear, and memory is that of a few chunks.

        What chunks change, measured on 200 s of varied speech with random weights (8 layers of 256
        channels): nothing beyond 1e-6 of the scale without attention, since the convolution of
        positions reaches 2.6 s; with attention, which random weights spread over the whole clip, an
        RMS of 1.1 % of a feature's standard deviation inside chunks, 1.3 % within 2 s of their seams
        and 2.1 % at most (with doubled attention weights 5 %, 6 % and 12 %; without context 19 % at
        seams). Twenty seconds of context would only make the 1.3 % 1.1 %.

        Args:
            plain: leave the samples as they are where nothing is said of their mean and variance.

        Raises:
            InputError: shorter than one video frame.
        """
        count = frame_count(speech.size)
        if count == 0:
            raise InputError(
                f"The speech lasts {speech.size / SAMPLE_RATE:.3f} s, less than one video frame ({1 / FPS} s); "
                "give a longer one."
            )
        late, size = pack.late_features, self.chunking
        clip = self._clip(speech, self.model.config.do_stable_layer_norm if late else self._normalises(pack))
        if late:
            count = late_count(self._num_features(clip))
        if count <= size.whole:
            frames = self._encode_late(clip) if late else self._encode_whole(clip, count)
            return SpeechFeatures(count, count, count, lambda _: frames, lambda: self._silence, late)
        way = self._encode_late_chunk if late else self._encode_chunk
        encode = functools.partial(way, clip, count, self._norm_statistics(clip))
        return SpeechFeatures(count, count, size.core, encode, lambda: self._silence, late)

    @functools.cached_property
    def _silence(self) -> Tensor:
        """The middle of some seconds of zeros, where they do not hear the edges of the clip."""
        samples = SILENCE_SECONDS * SAMPLE_RATE
        frames = self._encode_whole(
            self._clip(np.zeros(samples, np.float32), bool(self.normalise)), frame_count(samples)
        )
        return frames[len(frames) // 4 : 3 * len(frames) // 4]

    def _normalises(self, pack: PackFacts) -> bool:
        return not pack.plain_samples if self.normalise is None else self.normalise

    def _clip(self, speech: np.ndarray, normalise: bool) -> _Clip:
        """Normalized as by transformers' Wav2Vec2FeatureExtractor."""
        if not normalise:
            return _Clip(speech)
        pieces = [slice(start, start + PIECE) for start in range(0, speech.size, PIECE)]
        mean = sum(speech[piece].sum(dtype=np.float64) for piece in pieces) / speech.size
        variance = sum(np.square(speech[piece] - mean, dtype=np.float64).sum() for piece in pieces) / speech.size
        return _Clip(speech, float(mean), math.sqrt(variance + 1e-7))

    def _encode_whole(self, clip: _Clip, count: int) -> Tensor:
        """[count, layers, channels]."""
        features = self._convolve(clip, 0, self._num_features(clip), self._norm_statistics(clip))
        return self._transform(F.interpolate(features, size=count, mode="linear", align_corners=True))

    def _encode_chunk(self, clip: _Clip, count: int, statistics: _Statistics, index: int) -> Tensor:
        """The frames [core, layers, channels] of chunk ``index`` (the last chunk may be shorter)."""
        core, context = self.chunking.core, self.chunking.context
        first, last = index * core, min((index + 1) * core, count)
        start, stop = max(first - context, 0), min(last + context, count)

        # Where these frames lie among the features of the whole clip: align_corners, in double precision.
        total = self._num_features(clip)
        position = torch.arange(start, stop, dtype=torch.float64) * (total - 1) / (count - 1)
        low = position.long().clamp(max=total - 2)
        begin = int(low[0])
        features = self._convolve(clip, begin, int(low[-1]) + 2, statistics)
        at, weight = (low - begin).to(features.device), (position - low).float().to(features.device)
        frames = self._transform(torch.lerp(features[..., at], features[..., at + 1], weight))
        return frames[first - start : last - start].clone()

    def _encode_late(self, clip: _Clip) -> Tensor:
        """[frames, layers, channels], interpolated behind the last layer."""
        features = self._convolve(clip, 0, self._num_features(clip), self._norm_statistics(clip))
        return late_frames(self._transform(features))

    def _encode_late_chunk(self, clip: _Clip, count: int, statistics: _Statistics, index: int) -> Tensor:
        """The same of a chunk; see ``_encode_chunk``."""
        total, core, context = self._num_features(clip), self.chunking.core, 2 * self.chunking.context
        frames = torch.arange(index * core, min((index + 1) * core, count), dtype=torch.float64)
        position = frames * (total - 1) / (count - 1)
        low = position.long().clamp(max=total - 2)
        begin, end = max(int(low[0]) - context, 0), min(int(low[-1]) + 2 + context, total)
        states = self._transform(self._convolve(clip, begin, end, statistics))
        at, weight = low - begin, (position - low).float()[:, None, None]
        return torch.lerp(states[at], states[at + 1], weight)

    def _num_features(self, clip: _Clip) -> int:
        return (clip.speech.size - self._receptive_field) // self._hop + 1

    @torch.no_grad()
    def _convolve(self, clip: _Clip, begin: int, end: int, statistics: _Statistics) -> Tensor:
        """The convolutions' features ``begin`` to ``end - 1`` of the clip, [1, c, n], made a few at a time."""
        with contextlib.ExitStack() as hooks, _true_float32():
            norm = _group_norm(self.model)
            if norm is not None and statistics is not None:
                hook = norm.register_forward_hook(lambda _, args, output: _normalise_with(norm, args[0], *statistics))
                hooks.enter_context(hook)
            pieces = []
            for start in range(begin, end, CONVOLVED):
                stop = min(start + CONVOLVED, end)
                samples = clip.samples(start * self._hop, (stop - 1) * self._hop + self._receptive_field)
                pieces.append(self.model.feature_extractor(samples[None].to(self.model.device)))
        return torch.cat(pieces, dim=2)

    @torch.no_grad()
    def _transform(self, features: Tensor) -> Tensor:
        """Interpolated features [1, c, frames] -> [frames, layers, channels] float32 on the CPU."""
        # The model has no entrance for features: they replace those of samples that do not matter.
        samples = torch.zeros(1, self._receptive_field, device=self.model.device)
        with self.model.feature_extractor.register_forward_hook(lambda *_: features), _true_float32():
            output = self.model(samples, output_hidden_states=True)
        # The last layer's output is taken from last_hidden_state: where the encoder ends in a layer
        # norm (the large models), transformers 4 lists it after that norm and transformers 5 before.
        states = (*output.hidden_states[1:-1], output.last_hidden_state)
        return torch.stack(states, dim=2)[0].float().cpu()

    @torch.no_grad()
    def _norm_statistics(self, clip: _Clip) -> _Statistics:
        """Mean and variance [channels] over the clip of what the group norm normalises; None without group norm."""
        if _group_norm(self.model) is None:
            return None
        convolution = self.model.feature_extractor.conv_layers[0].conv
        (kernel,), (stride,) = convolution.kernel_size, convolution.stride
        outputs = (clip.speech.size - kernel) // stride + 1
        total, squares = 0.0, 0.0
        with _true_float32():
            for start in range(0, outputs, NORM_PIECE):
                stop = min(start + NORM_PIECE, outputs)
                piece = clip.samples(start * stride, (stop - 1) * stride + kernel).to(self.model.device)
                values = convolution(piece[None, None])[0]
                total = total + values.sum(dim=1).cpu().double()
                squares = squares + values.square().sum(dim=1).cpu().double()
        mean = total / outputs
        variance = (squares / outputs - mean**2).clamp(min=0)
        return mean.float(), variance.float()


def _group_norm(model: Wav2Vec2Model) -> nn.GroupNorm | None:
    """The norm over time, one group a channel, that the base models have after their first convolution."""
    norm = getattr(model.feature_extractor.conv_layers[0], "layer_norm", None)
    return norm if isinstance(norm, nn.GroupNorm) else None


def _normalise_with(norm: nn.GroupNorm, values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """``norm`` of ``values`` [1, channels, n], with statistics from elsewhere."""
    scale = norm.weight * torch.rsqrt(variance.to(values.device) + norm.eps)
    shift = norm.bias - mean.to(values.device) * scale
    return values * scale[:, None] + shift[:, None]


def _receptive_field(config: Wav2Vec2Config) -> int:
    """Samples that one feature of the convolutions sees (400)."""
    field, hop = 1, 1
    for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
        field += (kernel - 1) * hop
        hop *= stride
    return field


def _true_float32() -> contextlib.AbstractContextManager:
    """cuDNN would run float32 convolutions in TF32, at a thousandth of the precision."""
    return torch.backends.cudnn.flags(enabled=True, allow_tf32=False)


def load_speech_encoder(path: Path, device: torch.device | str = "cpu") -> SpeechEncoder:
    """Load wav2vec2, in float32.

    Args:
        path: a Hugging Face folder (config.json with model.safetensors or pytorch_model.bin), or a
            single weights file. What a config.json beside a single file does not say is read off
            the shapes of its tensors.

    Raises:
        InputError: nothing there, or not a wav2vec2 model.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{WHAT}: {path} does not exist; download the model: {DOWNLOAD}")
    folder = path if path.is_dir() else path.parent
    tensors = open_tensors(_weights_file(path) if path.is_dir() else path, WHAT).renamed(_parameter_name)
    settings = _read_json(folder / "config.json")
    if path.is_dir() and not settings:
        raise InputError(f"{WHAT}: the folder {path} has no config.json; download the whole model: {DOWNLOAD}")
    if path.is_file() and settings.get("model_type") != "wav2vec2":
        settings = _settings_from_shapes(tensors)
    model = _build(settings, tensors, device)
    return SpeechEncoder(model, _read_json(folder / "preprocessor_config.json").get("do_normalize"))


def _weights_file(folder: Path) -> Path:
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{WHAT}: the folder {folder} has neither model.safetensors nor pytorch_model.bin; download them: {DOWNLOAD}"
    )


def _parameter_name(name: str) -> str:
    """Without the prefix of models with a head on top, and with torch's new names of weight norm."""
    name = name.removeprefix("wav2vec2.")
    name = name.replace("pos_conv_embed.conv.weight_g", "pos_conv_embed.conv.parametrizations.weight.original0")
    return name.replace("pos_conv_embed.conv.weight_v", "pos_conv_embed.conv.parametrizations.weight.original1")


def _read_json(path: Path) -> dict:
    """An object from a JSON file; empty where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = read_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"{WHAT}: {path} is not valid JSON ({in_short(error)}); download it again: {DOWNLOAD}"
        ) from error
    if not isinstance(value, dict):
        raise InputError(f"{WHAT}: {path} holds a JSON {type(value).__name__}, not an object; download it: {DOWNLOAD}")
    return value


def _settings_from_shapes(tensors: Tensors) -> dict:
    """What config.json would say. Heads of 64 channels and strides are those of every published wav2vec2."""
    convolutions = _count(tensors, "feature_extractor.conv_layers.{}.conv.weight")
    layers = _count(tensors, "encoder.layers.{}.feed_forward.intermediate_dense.weight")
    positional = "encoder.pos_conv_embed.conv.parametrizations.weight.original1"
    if not convolutions or not layers or positional not in tensors:
        raise InputError(
            f"{WHAT}: {tensors.source} is not a wav2vec2 model; it holds {', '.join(list(tensors)[:3]) or 'nothing'}. "
            f"Download one: {DOWNLOAD}"
        )
    conv_shapes = [tensors.shape(f"feature_extractor.conv_layers.{i}.conv.weight") for i in range(convolutions)]
    channels, channels_per_group, kernel = tensors.shape(positional)
    layer_norm = "feature_extractor.conv_layers.1.layer_norm.weight" in tensors
    return {
        "hidden_size": channels,
        "num_hidden_layers": layers,
        "num_attention_heads": max(channels // 64, 1),
        "intermediate_size": tensors.shape("encoder.layers.0.feed_forward.intermediate_dense.weight")[0],
        "conv_dim": [shape[0] for shape in conv_shapes],
        "conv_kernel": [shape[2] for shape in conv_shapes],
        "conv_stride": [5] + [2] * (convolutions - 1),
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in tensors,
        "num_conv_pos_embeddings": kernel,
        "num_conv_pos_embedding_groups": channels // channels_per_group,
        "feat_extract_norm": "layer" if layer_norm else "group",
        "do_stable_layer_norm": layer_norm,  # published models have both or neither
    }


def _count(tensors: Tensors, pattern: str) -> int:
    count = 0
    while pattern.format(count) in tensors:
        count += 1
    return count


def _build(settings: dict, tensors: Tensors, device: torch.device | str) -> Wav2Vec2Model:
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    if settings.get("model_type", "wav2vec2") != "wav2vec2":
        raise InputError(
            f"{WHAT}: {tensors.source.parent} holds a model of type {settings['model_type']}, not wav2vec2; "
            f"download one: {DOWNLOAD}"
        )
    try:
        # Nothing is masked outside of training, and a model that never masks lacks the mask's embedding.
        config = Wav2Vec2Config.from_dict({**settings, "mask_time_prob": 0.0, "mask_feature_prob": 0.0})
        with torch.device("meta"):
            model = Wav2Vec2Model(config)
    except Exception as error:  # transformers 5 raises classes that 4 does not have
        reason = " ".join(str(error).split())[:LONGEST]
        raise InputError(
            f"{WHAT}: {tensors.source.parent / 'config.json'} does not describe a wav2vec2 model ({reason}); "
            f"download it again: {DOWNLOAD}"
        ) from error
    if not all(type(number) is int and number > 0 for number in (*config.conv_stride, *config.conv_kernel)):
        raise InputError(
            f"{WHAT}: {tensors.source.parent / 'config.json'} has a conv_stride or conv_kernel that is no whole number "
            f"above 0; download it again: {DOWNLOAD}"
        )
    fill(model, tensors, WHAT, dtype=torch.float32, device=device)
    return model.eval()
