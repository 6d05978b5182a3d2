"""Sound: decode a file, and make of it the speech that wav2vec2 hears.

``load_audio`` keeps what was recorded (rate, channels, level), since the finished video carries the
original sound; ``speech_for_model`` makes the 16 kHz mono at -23 LUFS that only the model hears.
Knows nothing about features or video frames, except that a video has ``FPS`` of them in a second.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

from ..errors import InputError

SAMPLE_RATE = 16_000
FPS = 25
LOUDNESS_LUFS = -23.0
_PLANES_THAT_CRASH = 8  # AudioFrame.to_ndarray of so many planes ends the process (PyAV 18.1)
_GATING_BLOCK = 2 * SAMPLE_RATE // 5  # BS.1770 measures in blocks of 0.4 s


@dataclass(frozen=True)
class Audio:
    """Decoded sound.

    Attributes:
        samples: float32 [channels, samples]; full scale is [-1, 1], though lossy codecs may exceed it.
        sample_rate: samples of one channel in a second.
    """

    samples: np.ndarray
    sample_rate: int

    @property
    def seconds(self) -> float:
        return self.samples.shape[1] / self.sample_rate


def frame_count(num_samples_16k: int) -> int:
    """Number of whole video frames in so many samples at 16 kHz, rounded down as upstream's get_embedding."""
    return int(num_samples_16k / SAMPLE_RATE * FPS)


def load_audio(path: Path) -> Audio:
    """Decode the first audio stream of a sound or video file, whatever PyAV can open.

    Sample for sample what ComfyUI's LoadAudio gives (comfy_extras/nodes_audio.py), which is what a
    graph and its exported command rely on; 8-bit sound, which that refuses, is read as well.

    Raises:
        InputError: no such file, not decodable, no audio stream, less sound than one video frame
            lasts, or samples that are not finite numbers.
    """
    path = Path(path)
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"The sound file {path} {found}; give the path of a sound or video file.")
    try:
        audio = _decode(path)
    except (av.error.FFmpegError, ValueError, OSError) as error:
        raise InputError(
            f"{path} cannot be decoded as sound ({error}); give a wav, mp3, flac, m4a, mp4 or similar file."
        ) from error
    if audio.seconds < 1 / FPS:
        raise InputError(
            f"{path} holds {audio.seconds:.3f} s of sound, less than one video frame ({1 / FPS} s); give a longer one."
        )
    if not np.isfinite(audio.samples).all():
        raise InputError(f"{path} holds samples that are NaN or infinite; export the sound again.")
    return audio


def _decode(path: Path) -> Audio:
    with av.open(str(path)) as container:
        if not container.streams.audio:
            raise InputError(f"{path} has no sound, only {_kinds(container)}; give a file with an audio stream.")
        stream = container.streams.audio[0]
        sample_rate = stream.codec_context.sample_rate
        channels = stream.codec_context.layout.nb_channels
        frames = container.decode(stream)
        if channels >= _PLANES_THAT_CRASH:
            frames = _interleaved(frames)
        blocks = [_to_planar_float(frame.to_ndarray(), channels) for frame in frames]
    if not blocks:
        raise InputError(f"The audio stream of {path} is empty; give a file with sound in it.")
    return Audio(np.concatenate(blocks, axis=1), sample_rate)


def _interleaved(frames: Iterator[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """The same samples, the channels in one plane."""
    resampler = None
    for frame in frames:
        if resampler is None:
            resampler = av.AudioResampler(format=frame.format.packed.name)
        yield from resampler.resample(frame)


def _kinds(container: av.container.InputContainer) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no streams at all"


def _to_planar_float(block: np.ndarray, channels: int) -> np.ndarray:
    """PyAV's [channels, n] or interleaved [1, n * channels] as float32 [channels, n] in [-1, 1]."""
    if block.shape[0] != channels:
        block = block.reshape(-1, channels).T
    if block.dtype == np.uint8:  # unsigned: silence is 128
        return block.astype(np.float32) / 2**7 - 1
    if np.issubdtype(block.dtype, np.signedinteger):
        return block.astype(np.float32) / 2 ** (8 * block.dtype.itemsize - 1)
    return block.astype(np.float32)


def speech_for_model(audio: Audio) -> np.ndarray:
    """The speech as wav2vec2 is to hear it: float32 [samples], mono, 16 kHz, -23 LUFS.

    All channels are averaged, then resampled as ``librosa.load(path, sr=16000)`` does, then brought
    to -23 LUFS as upstream's loudness_norm does (ITU-R BS.1770-4).

    Raises:
        InputError: a package that this needs is not installed.
    """
    return _normalise_loudness(_resample(audio.samples.mean(axis=0), audio.sample_rate))


def _resample(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """[n] at any rate -> [ceil(n * 16000 / rate)] at 16 kHz, by soxr HQ or else by torchaudio."""
    if sample_rate == SAMPLE_RATE:
        return samples
    length = math.ceil(samples.size * (float(SAMPLE_RATE) / sample_rate))
    try:
        import soxr
    except ImportError:
        resampled = _resample_by_torchaudio(samples, sample_rate)
    else:
        resampled = soxr.resample(samples, sample_rate, SAMPLE_RATE, quality="HQ")
    resampled = resampled[:length]
    return np.pad(resampled, (0, length - resampled.size))


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


def _normalise_loudness(speech: np.ndarray) -> np.ndarray:
    """[n] at 16 kHz, scaled to -23 LUFS; silence (nothing above -70 LUFS) stays as it is.

    BS.1770 cannot measure less than one gating block (0.4 s), so a shorter clip is measured as if
    it went on repeating: it gets the level that the same sound would have in a longer clip.
    """
    try:
        import pyloudnorm
    except ImportError as error:
        raise InputError("Normalising the loudness of the speech needs pyloudnorm: pip install pyloudnorm") from error
    measured = np.resize(speech, max(speech.size, _GATING_BLOCK))
    loudness = pyloudnorm.Meter(SAMPLE_RATE).integrated_loudness(measured)
    if abs(loudness) > 100:
        return speech
    return (speech * 10 ** ((LOUDNESS_LUFS - loudness) / 20)).astype(np.float32)
