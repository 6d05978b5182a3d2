"""InfiniteTalk's diffusion transformer: Wan 2.1 I2V with audio cross-attention in every block.

Parameter names are the checkpoints' own. One sequence at a time (batch 1): latents
[channels, frames, height, width] in, velocity of the same shape out. Several guidance branches
(with and without text or speech) share the embedding and walk each block together, so that a
block's weights are needed once per step. Knows nothing about steps, schedules or windows.

The residual stream is kept in the weights' dtype; modulation, time embedding and head are float32
(as upstream computes them).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from ..quantisation.matmul import WEIGHT_ONLY, Matmuls
from ..quantisation.rows import Activation
from .attention import Attention
from .linear import Linear
from .pointwise import Pointwise
from .rope import rope_table

TEXT_TOKENS = 512
AUDIO_WINDOW = 5
FRAMES_PER_LATENT = 4

KeyValue = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a transformer; all but ``num_heads`` can be read off the tensors' shapes."""

    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    in_channels: int
    out_channels: int
    patch_size: tuple[int, int, int]
    freq_dim: int
    text_dim: int
    image_dim: int
    audio_dim: int
    audio_hidden: int
    audio_tokens: int
    audio_features: int
    eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.dim // self.num_heads


@dataclass(frozen=True)
class Operations:
    """Interchangeable implementations of what a block computes."""

    attend: Attention
    pointwise: Pointwise
    matmuls: Matmuls = WEIGHT_ONLY


class ContextPart:
    """Embedded tokens of text, image or speech, and each block's keys and values of them.

    A block makes its keys and values when it first runs; they stay valid as long as the tokens do,
    so a part may be shared between guidance branches and windows.
    """

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens = tokens
        self._cached: dict[int, KeyValue] = {}

    def key_value(self, block: int, make: Callable[[torch.Tensor], KeyValue]) -> KeyValue:
        """Keys and values [batch, tokens, heads, head_dim] for this block."""
        if block not in self._cached:
            self._cached[block] = make(self.tokens)
        return self._cached[block]


@dataclass(frozen=True)
class Context:
    """What one guidance branch attends to."""

    text: ContextPart
    image: ContextPart
    audio: ContextPart


class StepCache(Protocol):
    """Decides whether a step's blocks must run, and keeps what they added otherwise (TeaCache)."""

    residuals: list[torch.Tensor]

    def must_compute(self, modulation: torch.Tensor) -> bool: ...


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """[..., dim] -> [..., heads, head_dim]"""
    return x.unflatten(-1, (heads, -1))


class RMSNorm(nn.Module):
    """Root-mean-square norm over all heads' channels together."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


class NormedAttention(nn.Module):
    """The layers that Wan's self-attention and cross-attention have in common."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q = Linear(config.dim, config.dim)
        self.k = Linear(config.dim, config.dim)
        self.v = Linear(config.dim, config.dim)
        self.o = Linear(config.dim, config.dim)
        self.norm_q = RMSNorm(config.dim, config.eps)
        self.norm_k = RMSNorm(config.dim, config.eps)


class SelfAttention(NormedAttention):
    def forward(self, x: torch.Tensor, rope: torch.Tensor, ops: Operations) -> torch.Tensor:
        x = Activation(x)
        q = ops.pointwise.norm_rotate(self.q(x), self.norm_q.weight, rope, self.num_heads, self.norm_q.eps)
        k = ops.pointwise.norm_rotate(self.k(x), self.norm_k.weight, rope, self.num_heads, self.norm_k.eps)
        v = split_heads(self.v(x), self.num_heads)
        return self.o(ops.attend(q[None], k[None], v[None])[0].flatten(-2))


class CrossAttention(NormedAttention):
    """Attention to text and to the reference image, each with keys of its own, summed."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__(config)
        self.k_img = Linear(config.dim, config.dim)
        self.v_img = Linear(config.dim, config.dim)
        self.norm_k_img = RMSNorm(config.dim, config.eps)

    def text_key_value(self, tokens: torch.Tensor) -> KeyValue:
        k = split_heads(self.norm_k(self.k(tokens)), self.num_heads)
        return k[None], split_heads(self.v(tokens), self.num_heads)[None]

    def image_key_value(self, tokens: torch.Tensor) -> KeyValue:
        k = split_heads(self.norm_k_img(self.k_img(tokens)), self.num_heads)
        return k[None], split_heads(self.v_img(tokens), self.num_heads)[None]

    def forward(self, x: torch.Tensor, text: KeyValue, image: KeyValue, ops: Operations) -> torch.Tensor:
        q = split_heads(self.norm_q(self.q(x)), self.num_heads)[None]
        out = ops.attend(q, *image).add_(ops.attend(q, *text))
        return self.o(out[0].flatten(-2))


class AudioCrossAttention(nn.Module):
    """Attention of each latent frame's tokens to the speech of that frame alone."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.q_linear = Linear(config.dim, config.dim)
        self.kv_linear = Linear(config.audio_dim, 2 * config.dim)
        self.proj = Linear(config.dim, config.dim)

    def key_value(self, tokens: torch.Tensor) -> KeyValue:
        """tokens [frames, audio tokens, audio_dim] -> two of [frames, audio tokens, heads, head_dim]."""
        k, v = self.kv_linear(tokens).unflatten(-1, (2, self.num_heads, -1)).unbind(-3)
        return k, v

    def forward(self, x: torch.Tensor, audio: KeyValue, ops: Operations) -> torch.Tensor:
        frames = audio[0].shape[0]
        q = self.q_linear(x).unflatten(-1, (self.num_heads, -1)).unflatten(0, (frames, -1))
        return self.proj(ops.attend(q, *audio).flatten(0, 1).flatten(-2))


class Block(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        dim, self.eps = config.dim, config.eps
        self.self_attn = SelfAttention(config)
        self.norm3 = nn.LayerNorm(dim, self.eps)
        self.cross_attn = CrossAttention(config)
        self.ffn = nn.Sequential(Linear(dim, config.ffn_dim), nn.GELU(approximate="tanh"), Linear(config.ffn_dim, dim))
        self.modulation = nn.Parameter(torch.empty(1, 6, dim))
        self.audio_cross_attn = AudioCrossAttention(config)
        self.norm_x = nn.LayerNorm(dim, self.eps)

    def forward(
        self,
        x: torch.Tensor,
        time: torch.Tensor,
        rope: torch.Tensor,
        text: KeyValue,
        image: KeyValue,
        audio: KeyValue,
        ops: Operations,
    ) -> torch.Tensor:
        """x [tokens, dim], time [1, 6, dim] float32 -> [tokens, dim]. Leaves ``x`` as it is."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (self.modulation + time).unbind(1)
        eps, norm3, norm_x = self.eps, self.norm3, self.norm_x
        h = ops.pointwise.norm(x, 1 + scale1, shift1, eps)
        x, h = ops.pointwise.add_norm(x, self.self_attn(h, rope, ops), gate1, norm3.weight, norm3.bias, eps)
        x, h = ops.pointwise.add_norm(x, self.cross_attn(h, text, image, ops), None, norm_x.weight, norm_x.bias, eps)
        x, h = ops.pointwise.add_norm(x, self.audio_cross_attn(h, audio, ops), None, 1 + scale2, shift2, eps)
        return ops.pointwise.add(x, self.ffn(h), gate2)


class Head(nn.Module):
    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, config.eps, elementwise_affine=False)
        self.head = nn.Linear(config.dim, config.out_channels * math.prod(config.patch_size))
        self.modulation = nn.Parameter(torch.empty(1, 2, config.dim))

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        shift, scale = (self.modulation + time.unsqueeze(1)).unbind(1)
        return self.head(torch.addcmul(shift, self.norm(x), 1 + scale))


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

    @property
    def device(self) -> torch.device:
        return self.patch_embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.patch_embedding.weight.dtype

    def to_without_blocks(self, device: torch.device | str) -> None:
        """Move everything but the blocks, which a ``BlockStreamer`` moves."""
        for name, part in self.named_children():
            if name != "blocks":
                part.to(device)
        self._rope = {}

    def text_part(self, embedding: torch.Tensor) -> ContextPart:
        """umT5 embedding [tokens <= 512, text_dim], padded with zeros to 512 as in training."""
        padded = F.pad(embedding.to(self.device, self.dtype), (0, 0, 0, TEXT_TOKENS - embedding.shape[0]))
        return ContextPart(self.text_embedding(padded))

    def image_part(self, embedding: torch.Tensor) -> ContextPart:
        """CLIP's penultimate hidden states [257, image_dim]."""
        return ContextPart(self.img_emb.proj(embedding.to(self.device, self.dtype)))

    def audio_part(self, windows: torch.Tensor) -> ContextPart:
        """Speech features of every video frame of the window, [1 + 4n, 5, layers, channels]."""
        return ContextPart(self.audio_proj(windows.to(self.device, self.dtype)))

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
            contexts: one a branch.
            blocks: this model's blocks in order, each on the device when its turn comes.
            cache: lets similar steps reuse what the blocks added.

        Returns:
            Tensors like ``latents``, one a branch.
        """
        x, grid = self.embed(torch.cat([latents, reference]))
        time, modulation = self.embed_time(timestep)
        if cache is not None and not cache.must_compute(modulation):
            branches = [x + residual for residual in cache.residuals]
        else:
            if cache is not None:
                cache.residuals = []  # before the blocks need the memory
            branches = self.run_blocks(x, modulation, self.rope(grid), contexts, blocks)
            if cache is not None:
                cache.residuals = [branch - x for branch in branches]
        return [self.unpatchify(self.head(branch, time), grid) for branch in branches]

    def run_blocks(
        self,
        x: torch.Tensor,
        modulation: torch.Tensor,
        rope: torch.Tensor,
        contexts: Sequence[Context],
        blocks: Iterable[Block],
    ) -> list[torch.Tensor]:
        """The same tokens [N, dim] through all blocks, once for each branch."""
        branches = [x] * len(contexts)
        for index, block in enumerate(blocks):
            for b, context in enumerate(contexts):
                text = context.text.key_value(index, block.cross_attn.text_key_value)
                image = context.image.key_value(index, block.cross_attn.image_key_value)
                audio = context.audio.key_value(index, block.audio_cross_attn.key_value)
                branches[b] = block(branches[b], modulation, rope, text, image, audio, self.operations)
        return branches


def parameter_shapes(config: TransformerConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of a transformer of these sizes."""
    with torch.device("meta"):
        model = WanTransformer(config, operations=None)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
