"""The models of a generator: loaded when they are first needed, kept, moved away for each other, released.

Knows what a plan says of a video, but nothing of windows or of what becomes of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from ..facts.packs import PACKS
from ..models.image_encoder import ImageEncoder, load_image_encoder
from ..models.speech import EncodedSpeech, read_silence
from ..models.speech_encoder import SpeechEncoder, load_speech_encoder
from ..models.speech_features import SpeechFeatures
from ..models.text.cache import Encoded, default_cache_dir, encode_prompts, not_cached
from ..models.text.encoder import TextEncoder, load_text_encoder
from ..models.transformer.blocks import TransformerBlocks
from ..models.transformer.loading import load_transformer
from ..models.transformer.model import WanTransformer
from ..models.vae.model import WanVAE, load_vae
from ..parallel.cards import Cards
from ..parallel.transformer import SharedTransformer
from ..parallel.vae import SharedVae
from ..parallel.weights import SharedWeights
from ..planning.describe import describe_machine, describe_placement
from ..planning.machine import free_memory
from ..planning.memory import SEPARATOR_ROOM, TEXT_ENCODER_ROOM
from ..planning.notices import Notice, voice_notice
from ..planning.run_plan import ModelsPlan, RunPlan
from .progress import BlockLoaded, Fact, Loading, Progress
from .streaming import Inputs, Models, Voices


class LoadedModels:
    """What is loaded of a generator's models.

    Args:
        plan: which models, and how they run.
        make_room: called with the bytes that are wanted on the card before it is looked how many are free.
        cards: that make videos together, all of which call the same; None for one alone.

    Attributes:
        speech_encoder, image_encoder, vae, transformer: those that are loaded, else None.
    """

    def __init__(self, plan: ModelsPlan, make_room: Callable[[int], None], cards: Cards | None = None) -> None:
        self._plan = plan
        self._cards = cards
        self._make_room = make_room
        self.speech_encoder: SpeechEncoder | None = None
        self.image_encoder: ImageEncoder | None = None
        self.vae: WanVAE | None = None
        self._transformer: tuple[WanTransformer, TransformerBlocks] | None = None
        self._heard: tuple[tuple, SpeechFeatures] | None = None  # of the last speech: videos may share it
        self._free: int | None = None  # on the card, when the transformer was loaded or came back

    @property
    def transformer(self) -> WanTransformer | None:
        return None if self._transformer is None else self._transformer[0]

    def inputs(self, plan: RunPlan, tell: Progress) -> Inputs:
        """What a video is made from, encoded. Text and speech encoders run before the transformer arrives."""
        prompt, *negative = self._prompts(plan.prompts, tell)
        speech, voices = self._encode_voices(plan, tell)
        if (path := self._plan.files.silence) is not None:
            silence = read_silence(path, speech)
            speech = speech.with_silence(silence)
            voices = None if voices is None else voices.with_silence(silence)
        return Inputs(plan.reference, speech, prompt, negative[0] if negative else None, voices)

    def _prompts(self, prompts: Sequence[str], tell: Progress) -> list[torch.Tensor]:
        """Embeddings on all cards: the first makes them, by weights that all have read where that is asked for."""
        plan, cards = self._plan, self._cards
        if cards is None:
            return self.encode_prompts(prompts, tell)
        if plan.settings.t5_fsdp:
            cached = plan.text_identity, default_cache_dir(), plan.embeddings
            missing = cards.agreed(lambda: not_cached(prompts, *cached))
            if missing:
                made = Encoded(self._text_encoder(tell, SharedWeights(cards.everyone)).encode(missing))
                return cards.agreed(lambda: encode_prompts(prompts, lambda: made, *cached))
        return cards.agreed(lambda: self.encode_prompts(prompts, tell))

    def encode_prompts(self, prompts: Sequence[str], tell: Progress) -> list[torch.Tensor]:
        """Embeddings of umT5; the encoder is opened only for prompts that are not in the cache."""
        cached = self._plan.text_identity, default_cache_dir(), self._plan.embeddings
        return encode_prompts(prompts, lambda: self._text_encoder(tell), *cached)

    def _text_encoder(self, tell: Progress, cards: SharedWeights | None = None) -> TextEncoder:
        device = self._plan.text_device
        if device.type == "cuda":
            self._make_room(TEXT_ENCODER_ROOM)
            if (free_memory(device) or 0) < TEXT_ENCODER_ROOM:
                self.release()  # what an earlier video left there
        tell(Loading("encoding the prompt"))
        return load_text_encoder(self._plan.files.encoders.text, device, self._plan.machine.dtype, cards)

    def _encode_voices(self, plan: RunPlan, tell: Progress) -> tuple[SpeechFeatures, Voices | None]:
        """What is heard, and the voices in it where there are several, or one with a place."""
        speakers = plan.speakers
        if speakers is None:
            return self._encode_speech(plan, tell), None
        encoder = self._find_speech_encoder(plan, tell)
        tell(Loading("encoding the speech"))
        pack = PACKS[plan.settings.pack]
        features = tuple(encoder.encode(voice.sound().samples[0], pack) for voice in speakers.voices)

        def flat(places: torch.Tensor | None) -> torch.Tensor | None:
            return None if places is None else places.flatten(1)

        return features[0], Voices(features, flat(speakers.masks), flat(speakers.shares))

    def _find_speech_encoder(self, plan: RunPlan, tell: Progress) -> SpeechEncoder:
        """The one that ComfyUI's speakers bring, else the generator's, on the device."""
        brought = [sound.encoder for sound in plan.job.sounds() if isinstance(sound, EncodedSpeech)]
        if not brought and self.speech_encoder is None:
            tell(Loading("loading the speech encoder"))
            self.speech_encoder = load_speech_encoder(self._plan.files.speech_encoder, self._plan.machine.device)
        encoder = brought[0] if brought else self.speech_encoder
        if encoder is None:
            raise AssertionError("it has just been loaded")
        encoder.move_to(self._plan.machine.device)
        return encoder

    def _encode_speech(self, plan: RunPlan, tell: Progress) -> SpeechFeatures:
        device = self._plan.machine.device
        if isinstance(plan.job.speech, EncodedSpeech):
            plan.job.speech.move_to(device)
            return plan.job.speech.features
        settings = plan.settings
        heard = plan.audio.digest(), settings.pack, settings.max_frame_num, settings.separate_voice
        if self._heard is None or self._heard[0] != heard:
            self._heard = heard, self._features(plan, tell)
        if self.speech_encoder is not None:  # long speech is encoded where it is asked for
            self.speech_encoder.move_to(device)
        return self._heard[1]

    def _features(self, plan: RunPlan, tell: Progress) -> SpeechFeatures:
        device = self._plan.machine.device
        if not plan.speech.is_made:
            self._make_room(SEPARATOR_ROOM)
            tell(Loading("separating the voice"))
            for text in voice_notice(plan.audio, plan.speech.sound().samples[0]):
                tell(Notice(text, warning=True))
        if self.speech_encoder is None:
            tell(Loading("loading the speech encoder"))
            self.speech_encoder = load_speech_encoder(self._plan.files.speech_encoder, device)
        self.speech_encoder.move_to(device)
        tell(Loading("encoding the speech"))
        return self.speech_encoder.encode(plan.speech.sound().samples[0], PACKS[plan.settings.pack])

    def for_video(self, plan: RunPlan, tell: Progress) -> tuple[Models, RunPlan]:
        """All models for a video; the transformer as far on the card as it fits there now.

        Returns:
            The models, and the plan with what of the transformer stays on the card.
        """
        image_encoder, vae = self._find_image_encoder(tell), self._find_vae(plan, tell)
        keep_models = self._plan.keep_models
        if keep_models and self._transformer is not None:
            self._transformer[1].to_host()
        if self._transformer is None or keep_models:
            self._make_room(plan.wanted)
            self._free = free_memory(self._plan.machine.device, plan.settings.vram_limit)
        plan = plan.placed(self._free)
        placement = plan.placement
        if self._transformer is None:
            self._transformer = self._load_transformer(plan, tell)
        elif keep_models:
            transformer, blocks = self._transformer
            transformer.to_without_blocks(self._plan.machine.device)
            blocks.place(placement.resident, placement.contexts)
        else:  # less may stay than for the video before, not more
            blocks = self._transformer[1]
            blocks.place(min(placement.resident, blocks.resident), placement.contexts and blocks.contexts_stay)
        device, offload = self._plan.machine.device, bool(self._plan.settings.offload_model)
        transformer, blocks = self._transformer
        models = Models(transformer, blocks, image_encoder, vae, device, offload, plan.vae)
        if self._cards is None:
            return models, plan
        shared = SharedTransformer(transformer, self._cards, plan.divide, plan.settings.use_teacache)
        return replace(models, transformer=shared, vae=SharedVae(vae, self._cards)), plan

    def _find_image_encoder(self, tell: Progress) -> ImageEncoder:
        if self.image_encoder is None:
            tell(Loading("loading the image encoder"))
            files, machine = self._plan.files.encoders, self._plan.machine
            self.image_encoder = load_image_encoder(files.clip_vision, torch.device("cpu"), machine.dtype)
        return self.image_encoder

    def _find_vae(self, plan: RunPlan, tell: Progress) -> WanVAE:
        """The VAE, loaded anew where the video before wanted it in another dtype."""
        if self.vae is None or self.vae.conv1.weight.dtype != plan.vae.dtype:
            self.vae = None
            tell(Loading("loading the VAE"))
            machine = self._plan.machine
            self.vae = load_vae(self._plan.files.encoders.vae, machine.device, plan.vae.dtype, machine.vae_kernels)
        return self.vae

    def _load_transformer(self, plan: RunPlan, tell: Progress) -> tuple[WanTransformer, TransformerBlocks]:
        weights, machine, placement = self._plan.weights, self._plan.machine, plan.placement
        tell(Loading("loading the transformer"))
        offload = bool(self._plan.settings.offload_model) or self._plan.keep_models
        sharing = None
        if self._cards is not None and self._plan.settings.dit_fsdp:
            sharing = SharedWeights(self._cards.everyone)
        blocks = TransformerBlocks(machine.device, placement.resident, placement.contexts, offload, sharing)
        transformer = load_transformer(
            weights,
            machine.operations,
            blocks,
            lambda done, count: tell(BlockLoaded(done, count)),
        )
        tell(Fact(f"transformer: {describe_machine(plan)}; {describe_placement(plan)}"))
        return transformer, blocks

    def release(self) -> None:
        """Give the card's memory back after a video; what the plan keeps waits in host memory."""
        if self._plan.machine.device.type == "cpu":
            return
        if not self._plan.keep_models:
            self._transformer = None
        elif self._transformer is not None:
            transformer, blocks = self._transformer
            blocks.to_host()
            transformer.to_without_blocks("cpu")
        for model in (self.speech_encoder, self.image_encoder, self.vae):
            if model is not None:
                model.move_to("cpu")
