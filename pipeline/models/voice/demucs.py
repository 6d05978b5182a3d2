"""Hybrid Demucs (A. Défossez, "Hybrid Spectrogram and Waveform Source Separation", 2021): the voice of a mix.

The network is torchaudio's own ``HDemucs``, with the weights that it publishes as ``hdemucs_high_trained.pt``; sizes
are read off the file. Cut up and put together as ComfyUI's AudioSeparation node does (audio-separation-nodes-comfyui):
its first chunk is 11 s, the others 11.1 s, which overlap by 0.1 s; a sound of one chunk fades out at its end. Knows
sound as blocks, and nothing of speech.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from ...checkpoints.files import Tensors
from ...checkpoints.load import fill
from ...checkpoints.shapes import dimensions
from ...errors import InputError
from ...media.audio import Audio
from ...media.sinc import resample, resampled_length
from .chunks import Span, added, cut, pairs

WHAT = "the voice separator (Hybrid Demucs, --separate_voice)"
SAMPLE_RATE = 44_100
FADE = SAMPLE_RATE // 10
CHUNK = SAMPLE_RATE * 11
SOURCES = ("drums", "bass", "other", "vocals")


class Demucs:
    """A voice separator.

    Args:
        model: torchaudio's HDemucs for ``SOURCES``, in float32.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, model: nn.Module, device: torch.device | str) -> None:
        self._model = model
        self._device = torch.device(device)

    @staticmethod
    def length(audio: Audio) -> int:
        """Samples of a channel of the voice."""
        return resampled_length(audio.num_samples, audio.sample_rate, SAMPLE_RATE)

    @torch.no_grad()
    def voice(self, audio: Audio) -> Iterator[np.ndarray]:
        """The voice of a sound, float32 [2, n] piece by piece. The sound is decoded twice: for its level, then to work.

        Silence stays silence (the node makes NaN of it).
        """
        length = self.length(audio)
        mean, deviation = _level(_stereo(audio), length)
        if deviation == 0:
            yield np.zeros((2, length), np.float32)
            return
        levelled = ((torch.from_numpy(block) - mean) / deviation for block in _stereo(audio))
        spans = list(spans_of(length))
        chunks = cut(levelled, spans)
        for piece in added(zip(spans, self._pieces(chunks, len(spans)), strict=True)):
            yield (piece * deviation + mean).numpy()

    def _pieces(self, chunks: Iterator[Tensor], count: int) -> Iterator[Tensor]:
        for index, chunk in enumerate(chunks):
            out = self._model(chunk[None].to(self._device))[0, SOURCES.index("vocals")].cpu()
            fade_out = index < count - 1 or index == 0  # also where the first chunk is the only one
            yield out * _ramps(out.shape[1], index > 0, fade_out)


def spans_of(length: int) -> Iterator[Span]:
    """The chunks of a sound of so many samples at 44.1 kHz."""
    start, stop = 0, CHUNK
    while start < length - FADE or start == 0:
        yield Span(start, stop)
        start = stop - FADE
        stop += CHUNK


def _ramps(length: int, fade_in: bool, fade_out: bool) -> Tensor:
    ramps = torch.ones(length)
    size = min(FADE, length)
    if fade_in:
        ramps[:size] *= torch.linspace(0, 1, FADE)[:size]
    if fade_out:
        ramps[length - size :] *= 1 - torch.linspace(0, 1, FADE)[FADE - size :]
    return ramps


def _stereo(audio: Audio) -> Iterator[np.ndarray]:
    return resample(pairs(audio), audio.sample_rate, SAMPLE_RATE, exact_kernel=True)


def _level(blocks: Iterator[np.ndarray], length: int) -> tuple[float, float]:
    """Mean and (unbiased) standard deviation of the mean of both channels."""
    total = squares = 0.0
    for block in blocks:
        mono = block.mean(axis=0)
        total += float(mono.sum(dtype=np.float64))
        squares += float(np.square(mono, dtype=np.float64).sum())
    mean = total / length
    return mean, math.sqrt(max(0.0, squares - length * mean**2) / max(1, length - 1))


def load_demucs(tensors: Tensors, device: torch.device | str) -> Demucs:
    """Build the network and fill it.

    Raises:
        InputError: torchaudio is not there, or the file is another model's.
    """
    with torch.device("meta"):
        model = _network()(
            list(SOURCES),
            channels=dimensions("freq_encoder.0.conv.weight", 4, tensors, WHAT)[0],
            nfft=8 * dimensions("freq_emb.embedding.weight", 2, tensors, WHAT)[0],
            depth=sum(f"freq_encoder.{layer}.conv.weight" in tensors for layer in range(16)),
        )
    fill(model, tensors, WHAT, dtype=torch.float32, device=device)
    return Demucs(model.eval(), device)


def _network() -> Callable[..., nn.Module]:
    try:
        from torchaudio.models import HDemucs
    except (ImportError, OSError) as error:  # made for another PyTorch
        raise InputError(
            "--separate_voice with Hybrid Demucs needs torchaudio, of the version that goes with this PyTorch "
            f"({torch.__version__}); install it with: pip install torchaudio, or use a Mel-Band RoFormer file."
        ) from error
    return HDemucs
