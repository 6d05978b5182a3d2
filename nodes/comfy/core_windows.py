"""ComfyUI's own model as what makes windows.

For each, the core's InfiniteTalk node conditions, the graph's guider and sampler sample, the graph's VAE decodes. Nodes
of the core are called by name. Of what comes by links only that is used which the core's own nodes use. What a window
needs of the speech and of the frames before it is cut out for it, so that nothing grows with the length of the video.
Knows no files and no widgets.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import comfy.model_management
import comfy.samplers
import comfy.utils
import torch

from ...pipeline.errors import InputError
from ...pipeline.media.audio import FPS, SAMPLE_RATE
from ...pipeline.run.progress import Decoding, Progress, Step, WindowStarted
from ...pipeline.run.windows import Colours, Finish, Motion, Window
from . import host

if TYPE_CHECKING:
    from ...pipeline.planning.windows import WindowSpan
    from ...pipeline.settings.definition import Settings

_FEATURES = 50  # a second, as wav2vec2 makes them
_AROUND = 2  # frames of speech on either side of a frame that the model hears with it
_SHORT = 1500  # frames of speech that the core may as well take apart itself, bit for bit as in a graph of its own
_PIECE = 8  # frames whose colours are corrected at once
_SEEDS = 2**64


class Footage(Protocol):
    """The pictures of the speaker."""

    def at(self, seconds: float) -> tuple[int, torch.Tensor]:
        """The number of the picture on screen at that time, and the picture, [1, H, W, 3] in [0, 1]."""


@dataclass(frozen=True)
class Linked:
    """What the graph links, as the core makes it.

    Attributes:
        guider: holds the model and the prompts.
        speech: wav2vec2's output.
        audio_scale: how strongly it acts.
    """

    guider: Any
    sampler: Any
    sigmas: torch.Tensor
    noise: Any
    model_patch: Any
    vae: Any
    clip_vision_output: Any
    speech: Speech
    audio_scale: float


def guider_of(guider: Any, model: Any, positive: list | None, negative: list | None, cfg: float) -> Any:
    """The graph's guider, or what the core's CFGGuider makes of model and prompts.

    Raises:
        InputError: both or neither are linked, one of the prompts is missing, or the model is another.
    """
    guider = _guider(guider, model, positive, negative, cfg)
    held = guider.model_patcher.model
    if not getattr(held, "image_to_video", False):  # as the core's Wan models say it
        raise InputError(f"model: Wan 2.1 I2V expected, found {type(held).__name__} that is shown no picture.")
    return guider


def _guider(guider: Any, model: Any, positive: list | None, negative: list | None, cfg: float) -> Any:
    apart = {"model": model, "positive": positive, "negative": negative}
    linked = [name for name, given in apart.items() if given is not None]
    if guider is not None:
        if linked:
            raise InputError(f"guider and {', '.join(linked)}: both are linked; the guider has them: unlink one.")
        return guider
    if model is None or positive is None:
        raise InputError("guider: not linked; link one, or model and positive.")
    if negative is None and cfg != 1:
        raise InputError(f"negative: not linked, but cfg is {cfg:g}; link a negative prompt, or set cfg to 1.")
    made = comfy.samplers.CFGGuider(model)
    made.set_conds(positive, positive if negative is None else negative)
    made.set_cfg(cfg)
    return made


class Speech:
    """The features of the speech at 25 a second, made for the windows that ask, as the core makes them for all.

    Args:
        encoded: AUDIO_ENCODER_OUTPUT.

    Attributes:
        frames: of video that the sound lasts.

    Raises:
        InputError: it is not what wav2vec2 makes of one sound.
    """

    def __init__(self, encoded: dict[str, Any]) -> None:
        self._encoded = encoded
        self._layers: Sequence[torch.Tensor] = encoded.get("encoded_audio_all_layers") or []
        if len(self._layers) < 2 or self._layers[0].ndim != 3:
            raise InputError("audio_encoder_output_1: it holds no layers of wav2vec2; link an AudioEncoderEncode.")
        if (count := self._layers[0].shape[0]) != 1:
            raise InputError(f"audio_encoder_output_1: a batch of {count} sounds found; link one.")
        self._made = self._layers[0].shape[1]  # at 50 a second
        self._length = int(self._made / float(_FEATURES) * FPS)  # rounded as the core does
        samples = encoded.get("audio_samples")
        self.frames = self._length if samples is None else samples * FPS // SAMPLE_RATE
        if self._length < 1 or self.frames < 1:
            raise InputError("audio_encoder_output_1: the sound is shorter than a frame of video; give a longer one.")

    def window(self, start: int, stop: int) -> tuple[dict[str, Any], int]:
        """What the core's node is given for the frames of a window, and at which of its frames the window starts."""
        if start == 0 and self._length <= max(stop, _SHORT):
            return self._encoded, 0
        lead = min(_AROUND, start)
        at = [self._index(frame, stop) for frame in range(start - lead, stop + _AROUND)]
        while int(2 * len(at) / float(_FEATURES) * FPS) != len(at):  # the core must come to this length
            at.append(at[-1])
        # The core takes features at i (2n - 1) / (n - 1), between the two that are both what frame i is to have.
        layers = [layer.new_zeros(1, 2 * len(at), layer.shape[2]) for layer in self._layers[:1]]
        layers += [self._frames(layer, torch.tensor(at)).repeat_interleave(2, dim=1) for layer in self._layers[1:]]
        return {**self._encoded, "encoded_audio_all_layers": layers}, lead

    def _index(self, frame: int, stop: int) -> int:
        """Which frame of speech a window hears at a frame: beyond the end the first one, as in the core."""
        if frame < self._length:
            return frame
        return 0 if stop > self._length else self._length - 1

    def _frames(self, layer: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Features at these frames, [1, n, C]: between two of those at 50 a second, ends upon ends."""
        scale = torch.tensor((self._made - 1) / max(1, self._length - 1), dtype=torch.float32)
        place = at.float() * scale
        low = place.long().clamp(max=self._made - 1)
        share = (place - low).to(layer)[:, None]
        high = (low + 1).clamp(max=self._made - 1)
        return layer[:, low] * (1 - share) + layer[:, high] * share


class CoreWindows:
    """One video in the making.

    Args:
        settings: of which size, windows, colours and seams count.
        count: windows of the video.
        size: height and width in pixels.
    """

    def __init__(
        self, linked: Linked, footage: Footage, settings: Settings, count: int, size: tuple[int, int], tell: Progress
    ) -> None:
        self._linked = linked
        self._footage = footage
        self._settings = settings
        self._count = count
        self._size = size
        self._tell = tell
        self._vae = _StillOnce(linked.vae, settings.frame_num)
        self._finish = Finish(settings, count, size, comfy.model_management.intermediate_device(), tell)
        self._colours: Colours | None = None

    def window(self, span: WindowSpan, motion: Motion) -> tuple[Window, torch.Tensor]:
        """Make one window; see ``pipeline.run.windows.MakeWindow``."""
        self._tell(WindowStarted(span.index, self._count))
        if self._colours is None:
            self._colours = self._finish.colours(self._pixels(self._footage.at(0)[1]))
        guider, latent = self._conditioned(span, motion)
        samples = self._sampled(span.index, guider, latent)
        self._tell(Decoding(span.index))
        frames = self._linked.vae.decode(samples)
        return self._finish(_pieces(frames.reshape(-1, *frames.shape[-3:])), span, self._colours, motion)

    def _pixels(self, picture: torch.Tensor) -> torch.Tensor:
        """A picture as the core's node crops it, [3, H, W] in [-1, 1]."""
        height, width = self._size
        channels = picture[..., :3].movedim(-1, 1).to(self._finish.device)
        return comfy.utils.common_upscale(channels, width, height, "bilinear", "center")[0] * 2 - 1

    def _conditioned(self, span: WindowSpan, motion: Motion) -> tuple[Any, torch.Tensor]:
        """The graph's guider with model and prompts for a window, and its empty latents."""
        linked, (height, width) = self._linked, self._size
        index, picture = self._footage.at(span.start / FPS)
        speech, lead = linked.speech.window(span.start, span.stop)
        previous = None if motion is None else _previous(motion, lead)
        made = host.core_node(host.ONE_WINDOW).execute(
            mode={"mode": "single_speaker"},
            model=_for_batches(linked.guider.model_patcher),
            model_patch=linked.model_patch,
            positive=[[None, {}]],
            negative=[[None, {}]],
            vae=self._vae.of(index),
            width=width,
            height=height,
            length=self._settings.frame_num,
            audio_encoder_output_1=speech,
            motion_frame_count=self._settings.motion_frame,
            start_image=picture,
            previous_frames=previous,
            audio_scale=linked.audio_scale,
            clip_vision_output=linked.clip_vision_output,
        )
        model, positive, negative, latent, _ = made.result
        values = {"positive": positive[0][1], "negative": negative[0][1]}
        guider = copy.copy(linked.guider)
        guider.model_patcher, guider.model_options = model, model.model_options
        guider.original_conds = {
            name: [{**cond, **values.get(name, values["positive"])} for cond in conds]
            for name, conds in linked.guider.original_conds.items()
        }
        return guider, latent["samples"]

    def _sampled(self, index: int, guider: Any, latent: torch.Tensor) -> torch.Tensor:
        """The latents of a window, with the graph's noise for its number: as if each had the next seed."""
        noise = copy.copy(self._linked.noise)
        noise.seed = (noise.seed + index) % _SEEDS

        def callback(step: int, estimate: torch.Tensor, _: torch.Tensor, steps: int) -> None:
            self._tell(Step(index, step + 1, steps, estimate[0]))

        samples = guider.sample(
            noise.generate_noise({"samples": latent}),
            latent,
            self._linked.sampler,
            self._linked.sigmas.clone(),
            callback=callback,
            disable_pbar=True,
            seed=noise.seed,
        )
        return samples.to(comfy.model_management.intermediate_device())


def _for_batches(model: Any) -> Any:
    """A model whose speech goes with a batch: the core gives one window's, and may compute two prompts at once."""
    model = model.clone()
    model.set_model_patch(_with_speech_for_all, "attn2_patch")
    return model


def _with_speech_for_all(given: dict[str, Any]) -> torch.Tensor:
    """A patch that leaves the tokens [B, n, C] as they are, for the core's, which attends to the speech after it."""
    tokens, options = given["x"], given["transformer_options"]
    speech = options.get("audio_embeds")  # [1, T, tokens, C], of which the core looks at the first
    frames = options["grid_sizes"][0]
    if speech is not None and speech.shape[1] < frames * tokens.shape[0]:
        options["audio_embeds"] = speech.repeat(1, tokens.shape[0], 1, 1)
    return tokens


class _StillOnce:
    """A VAE that encodes the still of a reference frame once: the core's node asks for it in every window."""

    def __init__(self, vae: Any, length: int) -> None:
        self._vae = vae
        self._length = length
        self._index = -1
        self._latents: torch.Tensor | None = None

    def of(self, index: int) -> _StillOnce:
        """For windows that see the reference frame of that number."""
        if index != self._index:
            self._index, self._latents = index, None
        return self

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        if pixels.shape[0] != self._length:  # the motion frames, which are fewer
            return self._vae.encode(pixels)
        if self._latents is None:
            self._latents = self._vae.encode(pixels)
        return self._latents.clone()


def _previous(motion: torch.Tensor, lead: int) -> torch.Tensor:
    """Motion frames [3, n, H, W] in [-1, 1] as frames [lead + n, H, W, 3] in [0, 1]; only the last n are looked at."""
    frames = (motion.movedim(0, -1) + 1) / 2
    return torch.cat([frames[:1].expand(lead, -1, -1, -1), frames]) if lead else frames


def _pieces(frames: torch.Tensor) -> Iterator[torch.Tensor]:
    """Frames [T, H, W, 3] in [0, 1] as [3, t, H, W] in [-1, 1], a few at a time."""
    for start in range(0, len(frames), _PIECE):
        yield frames[start : start + _PIECE, :, :, :3].movedim(-1, 0) * 2 - 1
