"""The speech that wav2vec2 hears: 16 kHz mono at -23 LUFS, made piece by piece in a temporary file.

Nothing here holds more than a minute of it, however long it is. Knows nothing about sound files but
that they give blocks, and nothing about features or frames.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np

from ..errors import InputError, in_short
from ..facts.packs import UPSTREAM, PackFacts
from .audio import FPS, SAMPLE_RATE, Audio

TARGET_LUFS = -23.0
PIECE = 60 * SAMPLE_RATE  # samples in memory at a time; a multiple of _HOP
_AT_ONCE = 5 * SAMPLE_RATE  # samples that are looked at before more are
_GATING_BLOCK = 2 * SAMPLE_RATE // 5  # BS.1770 measures in blocks of 0.4 s,
_HOP = _GATING_BLOCK // 4  # which follow each other by a quarter
_FILTER_MEMORY = SAMPLE_RATE  # what the filters heard a second ago is no part of their output (1e-100)
_OFFSET = -0.691  # LU
_ABSOLUTE_GATE = -70.0  # LUFS
_RELATIVE_GATE = -10.0  # LU


def speech_for_model(audio: Audio, pack: PackFacts = UPSTREAM, frames: int | None = None) -> np.ndarray:
    """The speech as wav2vec2 is to hear it: float32 [samples], mono, 16 kHz, and -23 LUFS unless the pack leaves it.

    All channels are averaged, then resampled as ``librosa.load(path, sr=16000)`` does, then brought
    to -23 LUFS as upstream's loudness_norm does (ITU-R BS.1770-4); silence (nothing above -70 LUFS)
    stays as it is.

    Args:
        pack: whose way it is heard, if it is another.
        frames: of the longest video, for packs that cut the speech to it beforehand.

    Returns:
        A read-only map of a temporary file (230 MB an hour), which is gone when the array is. The
        system counts pages that were read as ours, and takes them back as it likes.

    Raises:
        InputError: a package that this needs is not installed, the file cannot be decoded any more,
            or there is no space for temporary files.
    """
    length = speech_length(audio, pack, frames)
    try:
        with tempfile.TemporaryFile() as resampled, tempfile.TemporaryFile() as speech:
            _store_resampled(_heard(audio, pack), length, resampled)
            gain = _gain(_pieces(resampled), length) if pack.loudness else 1.0
            for piece in _pieces(resampled):
                speech.write((piece * gain).data)
            speech.flush()
            return np.memmap(speech, np.float32, mode="r", shape=(length,))  # keeps the file open
    except OSError as error:
        raise InputError(
            f"The speech cannot be stored in the folder for temporary files ({in_short(error)}); free some space "
            "there, or name another folder in the environment variable TMPDIR."
        ) from error


def speech_length(audio: Audio, pack: PackFacts = UPSTREAM, frames: int | None = None) -> int:
    """Samples of ``speech_for_model``'s speech."""
    if pack.sinc:
        from .sinc import resampled_length  # here, since it brings PyTorch, which no refusal waits for

        length = resampled_length(audio.num_samples, audio.sample_rate, SAMPLE_RATE)
        return min(length, int(frames / FPS * SAMPLE_RATE)) if pack.cut_first and frames is not None else length
    return math.ceil(audio.num_samples * (float(SAMPLE_RATE) / audio.sample_rate))


def is_faint(speech: np.ndarray) -> bool:
    """Whether nothing in ``speech_for_model``'s speech is above -70 LUFS, so that it stayed as it was.

    Looks no further than the first piece that is louder.
    """
    if len(speech) < _GATING_BLOCK:
        speech = np.resize(speech, _GATING_BLOCK)
    starts = range(0, len(speech), _AT_ONCE)
    return not any(
        np.isfinite(_integrated_loudness([part], len(part)))
        for part in (speech[max(0, min(start, len(speech) - _GATING_BLOCK)) : start + _AT_ONCE] for start in starts)
    )


def _heard(audio: Audio, pack: PackFacts) -> Iterator[np.ndarray]:
    """One channel [n] at 16 kHz, piece by piece."""
    if not pack.sinc:
        return _resample((block.mean(axis=0) for block in audio.blocks()), audio.sample_rate)
    first = (block[:1] if pack.first_channel else block.mean(axis=0, keepdims=True) for block in audio.blocks())
    from .sinc import resample

    return (np.ascontiguousarray(piece[0]) for piece in resample(first, audio.sample_rate, SAMPLE_RATE))


def _store_resampled(pieces: Iterator[np.ndarray], length: int, file: BinaryIO) -> None:
    missing = length
    for piece in pieces:
        piece = piece[:missing]
        file.write(piece.data)
        missing -= piece.size
    file.write(np.zeros(missing, np.float32).data)


def _pieces(file: BinaryIO) -> Iterator[np.ndarray]:
    """All samples of a file of float32, ``PIECE`` at a time."""
    file.seek(0)
    while data := file.read(PIECE * np.float32().itemsize):
        yield np.frombuffer(data, np.float32)


def _resample(blocks: Iterator[np.ndarray], sample_rate: int) -> Iterator[np.ndarray]:
    """Blocks [n] at any rate -> at 16 kHz, by soxr HQ; without it by torchaudio, which takes the whole at once."""
    if sample_rate == SAMPLE_RATE:
        yield from blocks
        return
    try:
        import soxr
    except ImportError:
        yield _resample_by_torchaudio(np.concatenate(list(blocks)), sample_rate)
        return
    stream = soxr.ResampleStream(sample_rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty(0, np.float32), last=True)


def _resample_by_torchaudio(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Hann-windowed sinc, cut off where soxr HQ is: on speech they differ by an RMS below 0.3 % of its own."""
    try:
        import torch
        from torchaudio.functional import resample
    except ImportError as error:
        raise InputError(
            f"Resampling the sound from {sample_rate} Hz to {SAMPLE_RATE} Hz needs soxr: pip install soxr"
        ) from error
    return resample(torch.from_numpy(samples), sample_rate, SAMPLE_RATE, lowpass_filter_width=64, rolloff=0.956).numpy()


def _gain(pieces: Iterable[np.ndarray], length: int) -> float:
    """What brings speech at 16 kHz to -23 LUFS; 1 for silence.

    BS.1770 cannot measure less than one gating block (0.4 s), so a shorter clip is measured as if
    it went on repeating: it gets the level that the same sound would have in a longer clip.
    """
    if length < _GATING_BLOCK:
        pieces, length = [np.resize(piece, _GATING_BLOCK) for piece in pieces], _GATING_BLOCK
    loudness = _integrated_loudness(pieces, length)
    return 1.0 if abs(loudness) > 100 else 10 ** ((TARGET_LUFS - loudness) / 20)


def _integrated_loudness(pieces: Iterable[np.ndarray], length: int) -> float:
    """Loudness in LUFS, -inf for silence: the number that pyloudnorm's Meter gives for the whole, within 1e-6.

    Args:
        pieces: float32 [n], one after the other; each but the last a multiple of ``_HOP``.
        length: samples in all of them, at least ``_GATING_BLOCK``.
    """
    energies = np.concatenate(list(_hop_energies(pieces)))
    powers = np.lib.stride_tricks.sliding_window_view(energies, _GATING_BLOCK // _HOP).sum(axis=1) / _GATING_BLOCK
    count = round((length / SAMPLE_RATE - 0.4) / 0.1) + 1  # the last block may lack up to half a hop
    return _gated(powers[:count])


def _hop_energies(pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Sums of squares over each 0.1 s after K-weighting (the last hop filled up with zeros)."""
    try:
        from pyloudnorm import IIRfilter
    except ImportError as error:
        raise InputError("Normalising the loudness of the speech needs pyloudnorm: pip install pyloudnorm") from error
    shelf = IIRfilter(4.0, 1 / math.sqrt(2), 1500.0, SAMPLE_RATE, "high_shelf")  # as pyloudnorm's Meter makes them
    high_pass = IIRfilter(0.0, 0.5, 38.0, SAMPLE_RATE, "high_pass")
    before = np.empty(0, np.float32)
    for piece in pieces:
        heard = np.concatenate([before, piece])
        weighted = high_pass.apply_filter(shelf.apply_filter(heard))[before.size :]
        weighted = np.pad(weighted, (0, -weighted.size % _HOP)).reshape(-1, _HOP)
        yield np.square(weighted).sum(axis=1)
        before = heard[-_FILTER_MEMORY:]


def _gated(powers: np.ndarray) -> float:
    """Loudness of the mean of the blocks that count: above -70 LUFS, and at most 10 LU below the mean of those."""
    with np.errstate(divide="ignore"):
        loudness = _OFFSET + 10 * np.log10(powers)
    audible = powers[loudness >= _ABSOLUTE_GATE]
    if audible.size == 0:
        return -math.inf
    threshold = _loudness(audible) + _RELATIVE_GATE
    return _loudness(powers[(loudness >= _ABSOLUTE_GATE) & (loudness > threshold)])


def _loudness(powers: np.ndarray) -> float:
    return _OFFSET + 10 * math.log10(powers.mean())
