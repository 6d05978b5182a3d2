"""The voice of a mix by Mel-Band RoFormer, cut up and put together as Kijai's ComfyUI-MelBandRoFormer does.

Windows of 8 s that follow each other by 4 s and fade over 0.8 s; long sounds are mirrored at both ends. Resampled by
soxr. The network is in ``roformer``; knows sound as blocks, and nothing of speech.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...checkpoints.files import Tensors
from ...checkpoints.load import fill
from ...checkpoints.shapes import dimensions
from ...errors import InputError
from ...media.audio import Audio
from .chunks import Span, added, cut, pairs
from .roformer import SAMPLE_RATE, MelBandRoformer, mel_bands

WHAT = "the voice separator (Mel-Band RoFormer, --separate_voice)"
WINDOW = 8 * SAMPLE_RATE
STEP = WINDOW // 2
FADE = WINDOW // 10
MOST_BANDS = 128


class MelBand:
    """A voice separator.

    Args:
        model: in float32.
    """

    sample_rate = SAMPLE_RATE

    def __init__(self, model: MelBandRoformer, device: torch.device | str) -> None:
        self._model = model
        self._device = torch.device(device)

    @staticmethod
    def length(audio: Audio) -> int:
        """Samples of a channel of the voice."""
        return math.ceil(audio.num_samples * (SAMPLE_RATE / audio.sample_rate))

    @torch.no_grad()
    def voice(self, audio: Audio) -> Iterator[np.ndarray]:
        """The voice of a sound, float32 [2, n] piece by piece."""
        length = self.length(audio)
        # The node looks at the length before resampling, and fails where it cannot mirror what is left after it.
        border = STEP if audio.num_samples > WINDOW and length > STEP else 0
        total = length + 2 * border
        blocks = (torch.from_numpy(block) for block in _stereo(audio, length))
        spans = [Span(start, start + WINDOW) for start in range(0, total, STEP)]
        pieces = self._pieces(cut(_mirrored(blocks, border), spans), spans, total)
        voices = ((piece[:2] / piece[2]).numpy() for piece in added(zip(spans, pieces, strict=True)))
        yield from _inside(voices, border, length)

    def _pieces(self, chunks: Iterator[Tensor], spans: list[Span], total: int) -> Iterator[Tensor]:
        """Each window's voice, weighted, and its weights: [3, n]."""
        for span, chunk in zip(spans, chunks, strict=True):
            length = chunk.shape[1]
            missing = WINDOW - length
            if missing and length > WINDOW // 2 + 1:
                chunk = F.pad(chunk, (0, missing), mode="reflect")
            elif missing:
                chunk = F.pad(chunk, (0, missing))
            weights = torch.ones(WINDOW)
            if span.start > 0:
                weights[:FADE] = torch.linspace(0, 1, FADE)
            if span.start == 0 or span.stop < total:
                weights[-FADE:] = torch.linspace(1, 0, FADE)
            voice = self._model(chunk.to(self._device)).cpu()
            yield torch.cat([voice * weights, weights[None]])[:, :length]


def _mirrored(blocks: Iterator[Tensor], border: int) -> Iterator[Tensor]:
    """A sound with so many samples of it mirrored before and behind it."""
    if border == 0:
        yield from blocks
        return
    first = next(blocks)
    while first.shape[1] <= border:
        first = torch.cat([first, next(blocks)], dim=1)
    yield first[:, 1 : border + 1].flip(1)
    last = first
    yield first
    for block in blocks:
        yield block
        last = torch.cat([last, block], dim=1)[:, -border - 1 :]
    yield last[:, -border - 1 : -1].flip(1)


def _inside(pieces: Iterable[np.ndarray], border: int, length: int) -> Iterator[np.ndarray]:
    """Pieces without the border at both ends."""
    place = -border
    for piece in pieces:
        yield piece[:, max(0, -place) : max(0, length - place)]
        place += piece.shape[1]


def _stereo(audio: Audio, length: int) -> Iterator[np.ndarray]:
    """Two channels at 44.1 kHz, of so many samples."""
    missing = length
    for piece in _resampled(audio):
        piece = piece[:, :missing]
        missing -= piece.shape[1]
        yield piece
    if missing:
        yield np.zeros((2, missing), np.float32)


def _resampled(audio: Audio) -> Iterator[np.ndarray]:
    if audio.sample_rate == SAMPLE_RATE:
        yield from pairs(audio)
        return
    try:
        import soxr
    except ImportError as error:
        raise InputError("--separate_voice with a Mel-Band RoFormer file needs soxr: pip install soxr") from error
    stream = soxr.ResampleStream(audio.sample_rate, SAMPLE_RATE, 2, dtype="float32", quality="HQ")
    for block in pairs(audio):
        yield stream.resample_chunk(np.ascontiguousarray(block.T)).T
    yield stream.resample_chunk(np.empty((0, 2), np.float32), last=True).T


def load_mel_band(tensors: Tensors, device: torch.device | str) -> MelBand:
    """Build the network and fill it.

    Raises:
        InputError: the file is another model's.
    """
    splits = [name for name in tensors if name.startswith("band_split.to_features.") and name.endswith(".1.weight")]
    bands, widths = len(splits), sorted(dimensions(name, 2, tensors, WHAT)[1] for name in splits)
    dim = dimensions("band_split.to_features.0.1.weight", 2, tensors, WHAT)[0]
    first = "layers.0.0.layers.0"
    (half,) = dimensions(f"{first}.0.rotary_embed.freqs", 1, tensors, WHAT)
    (heads,) = dimensions(f"{first}.0.to_gates.bias", 1, tensors, WHAT)
    inner = dimensions(f"{first}.1.net.1.weight", 2, tensors, WHAT)[0]
    mask_inner = dimensions("mask_estimators.0.to_freqs.0.0.0.weight", 2, tensors, WHAT)[0]
    if not 0 < bands <= MOST_BANDS or widths != sorted(4 * int(count) for count in mel_bands(bands).sum(axis=1)):
        raise InputError(
            f"{WHAT}: {tensors.source} splits the spectrum into {bands} bands in another way than that of a Mel-Band "
            "RoFormer for stereo sound at 44.1 kHz; give MelBandRoformer_fp16.safetensors or _fp32."
        )
    depth = 0
    while f"layers.{depth}.0.norm.gamma" in tensors:
        depth += 1
    with torch.device("meta"):
        model = MelBandRoformer(dim, depth, heads, 2 * half, inner, mask_inner, bands)
    fill(model, tensors, WHAT, dtype=torch.float32, device=device)
    return MelBand(model.eval(), device)
