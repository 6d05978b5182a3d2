"""InfiniteTalk's diffusion transformer: Wan 2.1 I2V with audio cross-attention in every block.

Parameter names are the checkpoints' own. One sequence at a time (batch 1): latents
[channels, frames, height, width] in, velocity of the same shape out. Several guidance branches
(with and without text or speech) share the embedding and walk each block together, so that a
block's weights are needed once per step. Knows nothing about steps, schedules or windows.

The residual stream is kept in the weights' dtype; modulation, time embedding and head are float32
(as upstream computes them).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from ...facts.model_sizes import AUDIO_WINDOW, TransformerConfig
from ...quantisation.activations import token_slices
from ...residency.slab import HostWeights
from .block import IMAGE_LAYERS, TEXT_LAYERS, TEXT_TOKENS, Attended, Block, Operations
from .rope import rope_table
from .speakers import Bound, Speech

FRAMES_PER_LATENT = 4


@dataclass(frozen=True)
class Context:
    """What one guidance branch attends to; branches and windows may share parts.

    Attributes:
        text, image: keys and values of all blocks, [blocks, 2, tokens, heads, head_dim]; the text's last key stands
            for its padding.
        speech: embedded, of one voice [frames, audio tokens, audio_dim] or of several. Its keys and values are made at
            every step: they take a thousandth of it, and would take gigabytes.
        strength: how much of what is heard is added.
    """

    text: torch.Tensor
    image: torch.Tensor
    speech: Speech
    strength: float = 1.0


class StepCache(Protocol):
    """Decides whether a step's blocks must run, and keeps what they added otherwise (TeaCache)."""

    residuals: list[torch.Tensor]

    def must_compute(self, modulation: torch.Tensor) -> bool: ...


class Head(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.dim, config.out_channels * math.prod(config.patch_size))
        self.modulation = nn.Parameter(torch.empty(1, 2, config.dim))

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        shift, scale = (self.modulation + time.unsqueeze(1)).unbind(1)
        parts = (self.norm(x[part]) for part in token_slices(len(x)))  # the float32 of all would be large
        return torch.cat([self.head(torch.addcmul(shift, part, 1 + scale)) for part in parts])


class ImageProjection(nn.Module):
    """CLIP's tokens into the transformer's width (``img_emb``)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.LayerNorm(config.image_dim),
            nn.Linear(config.image_dim, config.image_dim),
            nn.GELU(),
            nn.Linear(config.image_dim, config.dim),
            nn.LayerNorm(config.dim),
        )


class AudioProjection(nn.Module):
    """Speech features into a few tokens per latent frame (``audio_proj``).

    The first latent frame sees five features around one video frame; each later one, which
    covers four video frames, sees eight: three, one, one and three.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        window = AUDIO_WINDOW * config.audio_features
        window_later = (AUDIO_WINDOW + FRAMES_PER_LATENT - 1) * config.audio_features
        self.tokens = config.audio_tokens
        self.proj1 = nn.Linear(window, config.audio_hidden)
        self.proj1_vf = nn.Linear(window_later, config.audio_hidden)
        self.proj2 = nn.Linear(config.audio_hidden, config.audio_hidden)
        self.proj3 = nn.Linear(config.audio_hidden, config.audio_tokens * config.audio_dim)
        self.norm = nn.LayerNorm(config.audio_dim)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """windows [1 + 4n, 5, layers, channels] -> [1 + n, audio tokens, audio_dim]."""
        first, later = windows[:1], windows[1:].unflatten(0, (-1, FRAMES_PER_LATENT))
        middle = AUDIO_WINDOW // 2
        later = torch.cat(
            [
                later[:, 0, : middle + 1],
                later[:, 1:-1, middle],
                later[:, -1, middle:],
            ],
            dim=1,
        )
        hidden = torch.cat([self.proj1(first.flatten(1)), self.proj1_vf(later.flatten(1))]).relu()
        hidden = self.proj2(hidden).relu()
        return self.norm(self.proj3(hidden).unflatten(-1, (self.tokens, -1)))


class WanTransformer(nn.Module):
    """The whole transformer. Build under ``torch.device("meta")`` and fill from a checkpoint.

    ``operations`` may be None for a model that only tells names and shapes.
    """

    def __init__(self, config: TransformerConfig, operations: Operations | None) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.operations = operations
        self.patch_embedding = nn.Conv3d(config.in_channels, dim, config.patch_size, stride=config.patch_size)
        self.text_embedding = nn.Sequential(
            nn.Linear(config.text_dim, dim), nn.GELU(approximate="tanh"), nn.Linear(dim, dim)
        )
        self.time_embedding = nn.Sequential(nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.head = Head(config)
        self.img_emb = ImageProjection(config)
        self.audio_proj = AudioProjection(config)
        self._rope: dict[tuple[int, int, int], torch.Tensor] = {}
        self._others = HostWeights()

    @property
    def device(self) -> torch.device:
        return self.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.patch_embedding.weight.dtype

    def to_without_blocks(self, device: torch.device | str) -> None:
        """Move everything but the blocks, which a ``BlockStreamer`` moves."""
        self._others.move([part for name, part in self.named_children() if name != "blocks"], device)
        self._rope = {grid: table.to(device) for grid, table in self._rope.items()}

    def encode_text(self, embedding: torch.Tensor, blocks: Iterable[Block]) -> torch.Tensor:
        """Keys and values of a text for ``Context``.

        Args:
            embedding: of umT5, [tokens <= 512, text_dim]; padded with zeros to 512 as in training. All the padding
                has one key, so one stands for it.
            blocks: this model's blocks in order, each with its ``TEXT_LAYERS`` on the device when its turn comes.
        """
        padded = F.pad(embedding.to(self.device, self.dtype), (0, 0, 0, len(embedding) < TEXT_TOKENS))
        return self._keys_and_values(self.text_embedding(padded), TEXT_LAYERS, blocks)

    def encode_image(self, states: torch.Tensor, blocks: Iterable[Block]) -> torch.Tensor:
        """Keys and values of a reference image for ``Context``.

        Args:
            states: CLIP's penultimate hidden states, [257, image_dim].
            blocks: this model's blocks in order, each with its ``IMAGE_LAYERS`` on the device when its turn comes.
        """
        return self._keys_and_values(self.img_emb.proj(states.to(self.device, self.dtype)), IMAGE_LAYERS, blocks)

    def encode_text_for_image(self, embedding: torch.Tensor, blocks: Iterable[Block]) -> torch.Tensor:
        """Keys and values of a text in the place of an image's, as ComfyUI's own model has them where there is none.

        Args:
            embedding: as of ``encode_text``; here all of the padding counts.
            blocks: as of ``encode_image``.
        """
        padded = F.pad(embedding.to(self.device, self.dtype), (0, 0, 0, TEXT_TOKENS - len(embedding)))
        return self._keys_and_values(self.text_embedding(padded), IMAGE_LAYERS, blocks)

    def _keys_and_values(
        self, tokens: torch.Tensor, layers: tuple[str, str, str], blocks: Iterable[Block]
    ) -> torch.Tensor:
        config = self.config
        found = tokens.new_empty(config.num_layers, 2, len(tokens), config.num_heads, config.head_dim)
        for place, block in zip(found, blocks, strict=True):
            place.copy_(block.cross_attn.keys_and_values(tokens, layers))
        return found

    def embed_speech(self, windows: torch.Tensor) -> torch.Tensor:
        """Speech features of every video frame of the window, [1 + 4n, 5, layers, channels], for ``Context``."""
        return self.audio_proj(windows.to(self.device, self.dtype))

    def embed(self, latents: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int, int]]:
        """Latents [in_channels, T, H, W] -> tokens [N, dim] and the token grid."""
        channels = latents.shape[0]
        grid = tuple(n // p for n, p in zip(latents.shape[1:], self.config.patch_size, strict=True))
        (t, h, w), (pt, ph, pw) = grid, self.config.patch_size
        # A convolution whose stride is its kernel is a linear layer over patches.
        patches = latents.reshape(channels, t, pt, h, ph, w, pw).permute(1, 3, 5, 0, 2, 4, 6).reshape(t * h * w, -1)
        weight = self.patch_embedding.weight.flatten(1)
        return F.linear(patches.to(weight.dtype), weight, self.patch_embedding.bias), grid

    def unpatchify(self, x: torch.Tensor, grid: tuple[int, int, int]) -> torch.Tensor:
        (t, h, w), (pt, ph, pw) = grid, self.config.patch_size
        x = x.reshape(t, h, w, pt, ph, pw, self.config.out_channels).permute(6, 0, 3, 1, 4, 2, 5)
        return x.reshape(self.config.out_channels, t * pt, h * ph, w * pw)

    def embed_time(self, timestep: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Timestep in [0, 1000] -> embedding [1, dim] and modulation [1, 6, dim], float32."""
        half = self.config.freq_dim // 2
        frequencies = 10_000.0 ** -(torch.arange(half, dtype=torch.float64) / half)
        angles = timestep * frequencies
        waves = torch.cat([angles.cos(), angles.sin()])[None].float().to(self.device)
        embedding = self.time_embedding(waves)
        return embedding, self.time_projection(embedding).unflatten(1, (6, -1))

    def rope(self, grid: tuple[int, int, int]) -> torch.Tensor:
        """The rotation table of this latent size, made once."""
        if grid not in self._rope:
            self._rope = {grid: rope_table(grid, self.config.head_dim, self.device)}
        return self._rope[grid]

    def forward(
        self,
        latents: torch.Tensor,
        reference: torch.Tensor,
        timestep: float,
        contexts: Sequence[Context],
        blocks: Iterable[Block],
        cache: StepCache | None = None,
    ) -> list[torch.Tensor]:
        """Predict the velocity (noise minus clean latents) for each guidance branch.

        Args:
            latents: [out_channels, T, h, w] float32.
            reference: mask and latents of the reference image, [in_channels - out_channels, T, h, w].
            timestep: in [0, 1000].
            contexts: one a branch; with ``cache``, later steps may leave out the last ones.
            blocks: this model's blocks in order, each on the device when its turn comes.
            cache: lets similar steps reuse what the blocks added.

        Returns:
            Tensors like ``latents``, one a branch.
        """
        x, grid = self.embed(torch.cat([latents, reference]))
        time, modulation = self.embed_time(timestep)

        def velocity(tokens: torch.Tensor) -> torch.Tensor:
            return self.unpatchify(self.head(tokens, time), grid)

        if cache is None:
            branches = [x, *(x.clone() for _ in contexts[1:])]
            self.run_blocks(branches, modulation, self.rope(grid), contexts, blocks)
            return [velocity(branch) for branch in branches]
        if not cache.must_compute(modulation):
            return [velocity(x + residual) for residual in cache.residuals[: len(contexts)]]
        cache.residuals = []  # before the blocks need the memory
        branches = [x.clone() for _ in contexts]
        self.run_blocks(branches, modulation, self.rope(grid), contexts, blocks)
        velocities = [velocity(branch) for branch in branches]
        cache.residuals = [branch.sub_(x) for branch in branches]
        return velocities

    def run_blocks(
        self,
        branches: Sequence[torch.Tensor],
        modulation: torch.Tensor,
        rope: torch.Tensor,
        contexts: Sequence[Context],
        blocks: Iterable[Block],
    ) -> None:
        """Take each branch's tokens [N, dim], which begin equal, through all blocks, in place."""
        operations = self.operations
        if operations is None:
            raise RuntimeError("a model without operations only tells names and shapes")
        for index, block in enumerate(blocks):
            attended: list[Attended | None] = [None] * len(branches)
            if index == 0 and len(branches) > 1:  # they differ from the first cross-attention on
                masks = [context.speech.masks for context in contexts if isinstance(context.speech, Bound)]
                first, places = block.attend(branches[0], modulation, rope, operations, masks[0] if masks else None)
                attended = [Attended(first.shared(), places) for _ in branches]
                first.release()
                for x in branches[1:]:
                    x.copy_(branches[0])
            for x, context, begun in zip(branches, contexts, attended, strict=True):
                text, image = context.text[index], context.image[index]
                heard = operations.hearing(context.strength, x)
                block(x, modulation, rope, text, image, context.speech, heard, begun)


@functools.cache
def parameter_shapes(config: TransformerConfig) -> Mapping[str, tuple[int, ...]]:
    """Name and shape of every parameter of a transformer of these sizes."""
    with torch.device("meta"):
        model = WanTransformer(config, operations=None)
    return MappingProxyType({name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
