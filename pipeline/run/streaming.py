"""The streaming loop: window after window, each held to the last frames of the one before.

Works on loaded models and decoded inputs, and yields finished frames; what never changes between
windows is computed once. Only the motion frames outlive a window, so memory does not grow with the
length of the video. Knows no files and no video formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain

import torch

from ..facts.buckets import target_size
from ..facts.colours import COLOURS
from ..facts.packs import PACKS
from ..facts.resizing import resize_steps
from ..facts.solvers import SOLVERS
from ..media.audio import FPS
from ..media.crop import resize_and_crop
from ..media.reference import Reference
from ..media.resize import before_fit, resized
from ..models.image_encoder import ImageEncoder
from ..models.speech_features import SpeechFeatures
from ..models.transformer.blocks import TransformerBlocks
from ..models.transformer.model import Context, WanTransformer
from ..models.transformer.speakers import Bound, Placed, Speech, bound
from ..models.vae.model import WanVAE
from ..parallel.transformer import SharedTransformer
from ..parallel.vae import SharedVae
from ..planning.memory import VaePlan
from ..planning.windows import WindowSpan
from ..sampling.denoise import Conditions, denoise
from ..sampling.guidance import AdaptiveProjectedGuidance, Branch, ClassifierFreeGuidance, branches_of
from ..sampling.noise import NOISE_MAKERS, CoreNoise, Draws, Noise
from ..sampling.solvers import make_solver
from ..sampling.teacache import COEFFICIENTS_480, COEFFICIENTS_720, TeaCache
from ..settings.definition import PIXELS_480, Settings
from ..settings.validation import shift_of, steps_of, steps_taken, text_scales
from .progress import Decoding, Progress, Step, WindowStarted, Working, no_progress
from .windows import NO_WINDOWS, Before, Colours, Finish, Window, in_turn

MASK_CHANNELS = 4


@dataclass(frozen=True)
class Models:
    """What a window needs.

    Attributes:
        blocks: brings the transformer's blocks to the device.
        offload: whether models wait in host memory while others work.
        vae_plan: how the VAE works.
    """

    transformer: WanTransformer | SharedTransformer
    blocks: TransformerBlocks
    image_encoder: ImageEncoder
    vae: WanVAE | SharedVae
    device: torch.device
    offload: bool = False
    vae_plan: VaePlan = VaePlan()

    @contextmanager
    def using(self, model: ImageEncoder | WanVAE | SharedVae) -> Iterator[None]:
        """Have a model on the device for a while; only the VAE, which every window needs, may stay."""
        model.move_to(self.device)
        try:
            yield
        finally:
            if self.offload or model is not self.vae:
                model.move_to("cpu")

    @contextmanager
    def using_transformer(self) -> Iterator[None]:
        self.blocks.to_device()
        try:
            yield
        finally:
            if self.offload:
                self.blocks.to_host()
            else:
                self.blocks.free_slots()


@dataclass(frozen=True)
class Inputs:
    """What a video is made from.

    Attributes:
        prompt: umT5 embedding [n <= 512, text_dim].
        negative_prompt: the same of the negative prompt; used if text guidance is on.
        voices: who is heard where, if it is not one voice everywhere; then ``speech`` is the first of them.
    """

    reference: Reference
    speech: SpeechFeatures
    prompt: torch.Tensor
    negative_prompt: torch.Tensor | None = None
    voices: Voices | None = None


@dataclass(frozen=True)
class Voices:
    """Several voices and their places; one of ``masks`` and ``shares`` is there.

    Attributes:
        masks: see ``speakers.Bound``.
        shares: see ``speakers.Placed``.
    """

    features: tuple[SpeechFeatures, ...]
    masks: torch.Tensor | None = None
    shares: torch.Tensor | None = None

    def with_silence(self, frames: torch.Tensor) -> Voices:
        """See ``SpeechFeatures``."""
        return replace(self, features=tuple(one.with_silence(frames) for one in self.features))

    def embedded(
        self,
        span: WindowSpan,
        embed: Callable[[torch.Tensor], torch.Tensor],
        heard_in: Callable[[SpeechFeatures], SpeechFeatures],
    ) -> Bound | Placed:
        """What a window's frames hear.

        Args:
            heard_in: a voice as that window hears it.
        """
        heard = [embed(heard_in(one).windows(span.start, span.stop)) for one in self.features]
        device = heard[0].device
        if self.masks is not None:
            return bound(heard, self.masks.to(device))
        if self.shares is None:
            raise ValueError("voices without places")
        return Placed(torch.stack(heard), self.shares.to(device))


NoiseSource = Callable[[int, tuple[int, ...]], torch.Tensor]


class Streamer:
    """One video in the making.

    Args:
        settings: resolved.
        spans: the windows (``planning.windows.window_plan``).
        noise: gives window k's noise of a shape instead of the seed's, to compare implementations.
    """

    def __init__(
        self,
        models: Models,
        inputs: Inputs,
        settings: Settings,
        spans: tuple[WindowSpan, ...],
        progress: Progress = no_progress,
        noise: NoiseSource | None = None,
    ) -> None:
        self.models = models
        self.inputs = inputs
        self.settings = settings
        self.spans = spans
        self.progress = progress
        self.noise = noise
        self.pack = PACKS[settings.pack]
        self.speech, self.voices = inputs.speech, inputs.voices
        if settings.window_seeds:
            self.drawn: Noise = CoreNoise(settings.base_seed, models.device, settings.window_seeds)
        else:
            self.drawn = NOISE_MAKERS[settings.noise](settings.base_seed, models.device)
        self.steps = steps_taken(settings)
        self.size = target_size(settings.size, inputs.reference.height, inputs.reference.width)
        self.finish = Finish(settings, len(spans), self.size, models.device, progress)
        self.branches = branches_of(settings)
        self._encoded: _EncodedReference | None = None
        self._cropped: tuple[int, torch.Tensor] | None = None
        self._colours: Colours | None = None
        self._constants: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def window(self, span: WindowSpan, motion: torch.Tensor | None) -> tuple[Window, torch.Tensor]:
        """Make one window.

        Args:
            motion: the last ``motion_frame`` frames before it, [3, n, H, W] in [-1, 1]; None for the first.

        Returns:
            The window, and the motion frames for the next one.

        Raises:
            NotFinite: it holds NaN or infinite numbers.
        """
        self.progress(WindowStarted(span.index, len(self.spans)))
        if self._colours is None and COLOURS[self.settings.color_method].first:
            self._colours = self.finish.colours(self._pixels(self.inputs.reference.frame_index(0)))
        encoded = self._encode_reference(span.start / FPS)
        if motion is None:
            held = encoded.latents[:, :1]
        else:
            with self.models.using(self.models.vae):
                held = self.models.vae.encode(motion, self.models.vae_plan.tiles)
        latents = self._denoise(span, encoded, held)
        self.progress(Decoding(span.index))
        colours = self._colours or self.finish.colours(self._pixels(encoded.index))
        vae, tiles = self.models.vae, self.models.vae_plan.tiles
        with self.models.using(vae):
            decoded = _Announced(vae.decode_frames(latents, tiles, not self.pack.unclamped), self.progress)
            return self.finish(decoded, span, colours, motion)

    def _encode_reference(self, seconds: float) -> _EncodedReference:
        """Encode the reference frame for this time, unless it is the one that was encoded last."""
        index = self.inputs.reference.frame_index(seconds)
        if self._encoded is not None and index == self._encoded.index:
            return self._encoded
        models, pixels = self.models, self._pixels(index)
        image = None
        if self.settings.clip_crop != "off":
            with models.using(models.image_encoder):
                image = models.image_encoder.encode(self._shown_to_clip(index), self._clip_crop)
            image = image * self.settings.image_strength
        with models.using(models.vae):
            latents = models.vae.encode_still(pixels, self.settings.frame_num, models.vae_plan.tiles)
        mask = torch.zeros_like(latents[:MASK_CHANNELS])
        mask[:, 0] = 1
        self._encoded = _EncodedReference(index, latents, torch.cat([mask, latents]), image)
        self._constants.pop("image", None)
        return self._encoded

    def _pixels(self, index: int) -> torch.Tensor:
        """The reference frame of that number, [3, H, W] in [-1, 1]; kept until another is asked for."""
        if self._cropped is None or self._cropped[0] != index:
            frame, steps = self.inputs.reference.frame(index), self.settings.resize
            pixels = (
                resize_and_crop(frame, self.size) if steps is None else resized(frame, resize_steps(steps), self.size)
            )
            self._cropped = index, pixels.to(self.models.device)
        return self._cropped[1]

    def _shown_to_clip(self, index: int) -> torch.Tensor:
        """What CLIP sees of that reference frame, [3, h, w] in [-1, 1]."""
        steps = self.settings.resize
        if not self.pack.clip_before_fit or steps is None:
            return self._pixels(index)
        return before_fit(self.inputs.reference.frame(index), resize_steps(steps), self.size)

    @property
    def _clip_crop(self) -> str:
        return self.settings.clip_crop or ("center" if self.pack.clip_centre else "")

    def _denoise(self, span: WindowSpan, encoded: _EncodedReference, held: torch.Tensor) -> torch.Tensor:
        s, steps = self.settings, self.steps
        shape = tuple(encoded.latents.shape)
        facts = SOLVERS[s.sample_solver]
        draws = Draws(shape, held.shape[1], len(steps), facts.draws, facts.by_seed)
        noise, generator = self.drawn.begin(span.index, draws)
        noise = noise if self.noise is None else self.noise(span.index, shape)
        with self.models.using_transformer():
            return denoise(
                self.models.transformer,
                _Announced(self.models.blocks, self.progress),
                noise.to(self.models.device),
                Conditions(
                    encoded.reference,
                    held,
                    self._contexts(span, encoded),
                    self._guides(),
                    held_within=not self.pack.holds_seen,
                    held_at_end=not self.pack.holds_seen or span.index > 0,
                ),
                make_solver(s.sample_solver, steps_of(s), shift_of(s), generator, steps, s.sample_schedule),
                self._teacache(),
                lambda done, estimate: self.progress(Step(span.index, done, len(steps), estimate)),
            )

    def _contexts(self, span: WindowSpan, encoded: _EncodedReference) -> list[dict[Branch, Context]]:
        """What each branch of each step attends to."""
        transformer, blocks, inputs = self.models.transformer, self.models.blocks, self.inputs
        strength = self.settings.speech_strength
        windows = self._heard(self.speech, span).windows(span.start, span.stop)
        speech: Speech
        if self.voices is None:
            speech = transformer.embed_speech(windows)
        else:
            speech = self.voices.embedded(span, transformer.embed_speech, lambda voice: self._heard(voice, span))

        def context(branch: Branch) -> Context:
            name, prompt = "prompt", inputs.prompt
            if branch not in ("cond", "drop_audio") and inputs.negative_prompt is not None:
                name, prompt = "negative prompt", inputs.negative_prompt
            text = self._constant(name, lambda: transformer.encode_text(prompt, blocks.text))
            if (seen := encoded.image) is not None:
                image = self._constant("image", lambda: transformer.encode_image(seen, blocks.image))
            else:
                instead = f"{name} for the image"
                image = self._constant(instead, lambda: transformer.encode_text_for_image(prompt, blocks.image))
            if branch in ("cond", "drop_text"):
                return Context(text, image, speech, strength)
            silence = self._constant("silence", lambda: transformer.embed_speech(torch.zeros_like(windows)))
            return Context(text, image, silence, strength)

        contexts = {branch: context(branch) for branch in dict.fromkeys(chain.from_iterable(self.branches))}
        return [{branch: contexts[branch] for branch in branches} for branches in self.branches]

    def _heard(self, voice: SpeechFeatures, span: WindowSpan) -> SpeechFeatures:
        """A voice as a window hears it, whose end may be behind that of the speech."""
        if not self.pack.late_silence:
            return voice
        last = 0 < span.index == len(self.spans) - 1
        return voice.ending(span.stop) if last else voice.holding_last()

    def _constant(self, name: str, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """What the transformer makes of inputs that no window changes, or only the next reference frame; made once."""
        if name not in self._constants:
            self._constants[name] = make()
        return self._constants[name]

    def _guides(self) -> list[ClassifierFreeGuidance] | list[AdaptiveProjectedGuidance]:
        """One for each step; that with a memory of past steps is the same for all."""
        s, by_speech = self.settings, self.settings.sample_audio_guide_scale
        if s.use_apg:
            scales = s.sample_text_guide_scale, by_speech
            return [AdaptiveProjectedGuidance(*scales, s.apg_momentum, s.apg_norm_threshold)] * len(self.steps)
        return [ClassifierFreeGuidance(by_text, by_speech) for by_text in text_scales(s)]

    def _teacache(self) -> TeaCache | None:
        if not self.settings.use_teacache:
            return None
        small = self.size[0] * self.size[1] <= PIXELS_480
        return TeaCache(self.settings.teacache_thresh, COEFFICIENTS_480 if small else COEFFICIENTS_720)


@dataclass(frozen=True)
class _EncodedReference:
    """The reference frame that is encoded at the moment; ``image`` is what CLIP sees in it, None where it sees none."""

    index: int
    latents: torch.Tensor
    reference: torch.Tensor
    image: torch.Tensor | None


class _Announced:
    """The same items; a listener hears ``Working`` before each is made."""

    def __init__(self, items: Iterable, progress: Progress) -> None:
        self._items = items
        self._progress = progress

    def __iter__(self) -> Iterator:
        items = iter(self._items)
        while True:
            self._progress(Working())
            try:
                item = next(items)
            except StopIteration:
                return
            yield item


def stream(
    models: Models,
    inputs: Inputs,
    settings: Settings,
    spans: tuple[WindowSpan, ...],
    progress: Progress = no_progress,
    noise: NoiseSource | None = None,
    before: Before = NO_WINDOWS,
) -> Iterator[tuple[Window, Before]]:
    """The windows of a video, one after the other, each with what the next one needs.

    Args:
        before: what there is of the video; the stream goes on after that.

    See ``Streamer`` for the others.
    """
    streamer = Streamer(models, inputs, settings, spans, progress, noise)
    motion = None if before.motion is None else before.motion.to(models.device)
    if before.noise.numel():
        streamer.drawn.restore(before.windows, before.noise)
    yield from in_turn(streamer.window, spans, motion, before.windows, streamer.drawn.state)
