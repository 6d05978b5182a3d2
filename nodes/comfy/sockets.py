"""What flows between our nodes: descriptions that are cheap to make and to compare, and encoded speech.

The loader's output names files and holds no weights, so that changing an ancestor reloads nothing that
stays the same. Everything else on our sockets is ComfyUI's own (IMAGE, AUDIO, VIDEO).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from comfy_api.latest import io

from ...pipeline.errors import InputError
from ...pipeline.settings.roles import Values

if TYPE_CHECKING:
    from ...pipeline.media.audio import Sound
    from ...pipeline.models.speech import EncodedSpeech
    from ...pipeline.settings.presets import Preset

PresetSocket = io.Custom("INFINITETALK_PRESET")
LoraSocket = io.Custom("INFINITETALK_LORA")
ModelSocket = io.Custom("INFINITETALK_MODEL")
SpeechSocket = io.Custom("INFINITETALK_SPEECH")


def sound_of(audio: dict) -> Sound:
    """ComfyUI's AUDIO as the engine's sound.

    Raises:
        InputError: it is a batch of several.
    """
    from ...pipeline.media.audio import Sound

    waveform = audio["waveform"]
    if waveform.shape[0] != 1:
        raise InputError(f"audio: a batch of {waveform.shape[0]} sounds found; InfiniteTalk animates one speaker.")
    return Sound(np.ascontiguousarray(waveform[0].float().cpu().numpy()), int(audio["sample_rate"]))


@dataclass(frozen=True)
class LoraChain:
    """LoRAs in the order in which they are applied: those of a preset, then path and strength of each other.

    A preset's are looked up where they are used, for nobody may want them.
    """

    loras: tuple[tuple[Path, float], ...] = ()
    preset: Preset | None = None


@dataclass(frozen=True)
class ModelChoice:
    """Which models, and how they run.

    Attributes:
        settings: values of ``Settings`` by name; paths are absolute.
        preset: the name of the preset that ruled some of them, if any.
    """

    settings: Values = field(default_factory=dict)
    preset: str | None = None


@dataclass(frozen=True)
class Speech:
    """Speech that is ready for the sampler, and the model that encoded it."""

    encoded: EncodedSpeech
    wav2vec_dir: Path
