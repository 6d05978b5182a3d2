"""The engine's transformer in a form that learns: batches, gradients, the same parameters.

Works on the state dict of the engine's ``WanTransformer``, so what is trained here loads there; a test
compares the two. Matrix products run in ``dtype``, everything between them in float32. Knows no data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..pipeline.facts.model_sizes import AUDIO_WINDOW
from ..pipeline.models.transformer.block import TransformerConfig
from ..pipeline.models.transformer.model import FRAMES_PER_LATENT, parameter_shapes
from ..pipeline.models.transformer.rope import THETA, rope_table
from ..pipeline.models.transformer.speakers import BETWEEN, REST, SPREAD, key_positions
from .frozen import IMAGE_DIM, TEXT_DIM
from .speech_encoder import HIDDEN, LAYERS

Parameters = dict[str, torch.Tensor]
TEXT_KEY = 5.0  # a dozen words compete with 500 padding tokens, whose keys begin as zeros: sharper attention

CONFIG = TransformerConfig(
    dim=256,
    ffn_dim=768,
    num_heads=4,
    num_layers=5,
    in_channels=36,
    out_channels=16,
    patch_size=(1, 2, 2),
    freq_dim=256,
    text_dim=TEXT_DIM,
    image_dim=IMAGE_DIM,
    audio_dim=96,
    audio_hidden=160,
    audio_tokens=8,
    audio_features=LAYERS * HIDDEN,
)


def initial_parameters(config: TransformerConfig, seed: int = 0) -> Parameters:
    """float32 on the CPU; the last layer is zero, the branches begin small."""
    generator = torch.Generator().manual_seed(seed)
    parameters = {}
    for name, shape in parameter_shapes(config).items():
        if name.endswith("modulation"):
            value = torch.randn(shape, generator=generator) / config.dim**0.5
            if shape[1] == 6:
                value[:, (2, 5)] += 0.4
        elif "norm" in name or name.startswith(("img_emb.proj.0", "img_emb.proj.4")):
            value = torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)
            if name.endswith("cross_attn.norm_k.weight"):
                value *= TEXT_KEY
        elif name.endswith("bias") or name == "head.head.weight":
            value = torch.zeros(shape)
        else:
            gain = (
                0.3
                if name.startswith("time_projection") or name.endswith(("cross_attn.o.weight", "proj.weight"))
                else 1
            )
            value = torch.randn(shape, generator=generator) * gain / math.sqrt(math.prod(shape[1:]))
        parameters[name] = value
    return parameters


@dataclass(frozen=True)
class Conditions:
    """What a batch of videos is made from.

    Attributes:
        reference: mask and reference latents [batch, 20, T, h, w].
        text: umT5 embeddings padded with zeros [batch, 512, text_dim].
        image: CLIP features [batch, 257, image_dim].
        speech: windows of features [batch, 1 + 4 (T - 1), 5, layers, channels].
    """

    reference: torch.Tensor
    text: torch.Tensor
    image: torch.Tensor
    speech: torch.Tensor


@dataclass(frozen=True)
class Pair(Conditions):
    """Two speakers; ``speech`` is the first one's.

    Attributes:
        other: the second one's speech.
        masks: tokens of a frame in each one's region and in neither, [batch, 3, h * w / 4], 1 or 0.
        bound: 1 where voices are bound to regions, 0 where all hear ``speech`` (``other`` is the same), [batch].
    """

    other: torch.Tensor
    masks: torch.Tensor
    bound: torch.Tensor


Whose = tuple[torch.Tensor, torch.Tensor]  # masks and ``bound`` of a ``Pair``


class Network:
    """Predicts velocities for batches.

    Args:
        parameters: by the checkpoint's names.
        dtype: of matrix products and attention.
        compile_blocks: run blocks through torch.compile.
    """

    def __init__(
        self,
        config: TransformerConfig,
        parameters: Parameters,
        dtype: torch.dtype = torch.float32,
        compile_blocks: bool = False,
    ) -> None:
        self.config, self.dtype = config, dtype
        self.use(parameters)
        self.run_block: Callable = torch.compile(run_block, dynamic=False) if compile_blocks else run_block
        self._ropes: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def use(self, parameters: Parameters) -> None:
        """Other parameters from now on."""
        self.parameters, self.blocks = parameters, []
        for number in range(self.config.num_layers):
            prefix = f"blocks.{number}."
            self.blocks.append({n.removeprefix(prefix): p for n, p in parameters.items() if n.startswith(prefix)})

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return _linear(self.parameters, name, x, self.dtype)

    def __call__(self, latents: torch.Tensor, timesteps: torch.Tensor, given: Conditions) -> torch.Tensor:
        """Velocities (noise minus clean latents) of latents [batch, 16, T, h, w]; timesteps [batch] in [0, 1000]."""
        config, p = self.config, self.parameters
        joined = torch.cat([latents, given.reference], dim=1)
        b, c, t, height, width = joined.shape
        h, w = height // 2, width // 2
        patches = joined.reshape(b, c, t, h, 2, w, 2).permute(0, 2, 3, 5, 1, 4, 6).reshape(b, t * h * w, -1)
        weight = p["patch_embedding.weight"].flatten(1).to(self.dtype)
        x = F.linear(patches.to(self.dtype), weight, p["patch_embedding.bias"].to(self.dtype)).float()

        time = F.silu(_linear(p, "time_embedding.0", self._waves(timesteps), torch.float32))
        time = _linear(p, "time_embedding.2", time, torch.float32)
        modulation = _linear(p, "time_projection.1", F.silu(time), torch.float32).unflatten(1, (6, -1))
        text = self.linear("text_embedding.2", F.gelu(self.linear("text_embedding.0", given.text), approximate="tanh"))
        image = _norm(given.image.float(), p["img_emb.proj.0.weight"], p["img_emb.proj.0.bias"], 1e-5)
        image = self.linear("img_emb.proj.3", F.gelu(self.linear("img_emb.proj.1", image)))
        image = _norm(image.float(), p["img_emb.proj.4.weight"], p["img_emb.proj.4.bias"], 1e-5)
        audio = self._audio(given.speech)
        whose = None
        if isinstance(given, Pair):
            audio, whose = torch.cat([audio, self._audio(given.other)], dim=2), (given.masks, given.bound)
        cos, sin = self._rope((t, h, w), x.device)
        for block in self.blocks:
            x = self.run_block(block, x, modulation, cos, sin, text, image, audio, config.num_heads, self.dtype, whose)

        shift, scale = (p["head.modulation"] + time.unsqueeze(1)).unbind(1)
        x = F.layer_norm(x, (config.dim,), eps=config.eps) * (1 + scale).unsqueeze(1) + shift.unsqueeze(1)
        x = self.linear("head.head", x).float()
        x = x.reshape(b, t, h, w, 1, 2, 2, config.out_channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(b, config.out_channels, t, height, width)

    def _waves(self, timesteps: torch.Tensor) -> torch.Tensor:
        half = self.config.freq_dim // 2
        frequencies = 10_000.0 ** -(torch.arange(half, device=timesteps.device, dtype=torch.float32) / half)
        angles = timesteps[:, None] * frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=1)

    def _rope(self, grid: tuple[int, int, int], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if grid not in self._ropes:
            table = rope_table(grid, self.config.head_dim, "cpu")
            self._ropes[grid] = table.real.contiguous().to(device), table.imag.contiguous().to(device)
        return self._ropes[grid]

    def _audio(self, windows: torch.Tensor) -> torch.Tensor:
        """[batch, 1 + 4n, 5, layers, channels] -> [batch, 1 + n, tokens, audio_dim]."""
        first, later = windows[:, :1].flatten(2), windows[:, 1:].unflatten(1, (-1, FRAMES_PER_LATENT))
        middle = AUDIO_WINDOW // 2
        later = torch.cat([later[:, :, 0, : middle + 1], later[:, :, 1:-1, middle], later[:, :, -1, middle:]], dim=2)
        hidden = [self.linear("audio_proj.proj1", first), self.linear("audio_proj.proj1_vf", later.flatten(2))]
        hidden = self.linear("audio_proj.proj2", torch.cat(hidden, dim=1).relu()).relu()
        tokens = self.linear("audio_proj.proj3", hidden).unflatten(-1, (self.config.audio_tokens, -1))
        return _norm(
            tokens.float(), self.parameters["audio_proj.norm.weight"], self.parameters["audio_proj.norm.bias"], 1e-5
        )


def _linear(p: Parameters, name: str, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return F.linear(x.to(dtype), p[f"{name}.weight"].to(dtype), p[f"{name}.bias"].to(dtype))


def _norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float) -> torch.Tensor:
    return F.layer_norm(x, weight.shape, weight, bias, eps)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """[batch, tokens, heads, head_dim] each -> [batch, tokens, dim]."""
    out = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return out.transpose(1, 2).flatten(2)


@torch.no_grad()
def _places(q: torch.Tensor, k: torch.Tensor, masks: torch.Tensor, bound: torch.Tensor) -> torch.Tensor:
    """Where tokens belong by the reference map, [batch, tokens], as the engine has it; 0 where nothing is bound."""
    values = torch.zeros_like(k[:, : masks.shape[2]])
    values[..., : masks.shape[1]] = masks.mT[:, :, None].to(values.dtype)
    found = _attend(q, k[:, : masks.shape[2]], values).unflatten(-1, q.shape[2:])[..., : masks.shape[1]]
    maps = found.float().mean(2).mT / masks.float().sum(2, keepdim=True)
    least, most = maps.amin(2, keepdim=True), maps.amax(2, keepdim=True)
    first = BETWEEN * torch.arange(2, device=maps.device)[:, None]
    own = (maps[:, :2] - least[:, :2]) / (most[:, :2] - least[:, :2] + 1e-8) * SPREAD + first
    places = torch.cat([own, torch.full_like(maps[:, 2:], REST)], dim=1)
    return places.gather(1, maps.argmax(1, keepdim=True))[:, 0] * bound[:, None]


def _turned(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[batch, n, heads, head_dim] rotated by positions [batch, n]."""
    exponents = torch.arange(0, x.shape[-1], 2, device=x.device).float() / x.shape[-1]
    angles = places[:, :, None, None] * (1.0 / THETA**exponents)
    even, odd = x.float().unflatten(-1, (-1, 2)).unbind(-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(x.dtype)


def run_block(
    p: Parameters,
    x: torch.Tensor,
    modulation: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    text: torch.Tensor,
    image: torch.Tensor,
    audio: torch.Tensor,
    heads: int,
    dtype: torch.dtype,
    whose: Whose | None = None,
) -> torch.Tensor:
    """One block on tokens [batch, n, dim] float32; ``p`` has its parameters."""
    dim, eps = x.shape[-1], 1e-6
    shift1, scale1, gate1, shift2, scale2, gate2 = (p["modulation"] + modulation).unsqueeze(2).unbind(1)

    def normed(name: str, x: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(x.float(), (dim,), p[f"{name}.weight"], eps).to(dtype)

    def rotated(x: torch.Tensor) -> torch.Tensor:
        even, odd = x.float().unflatten(-1, (heads, -1, 2)).unbind(-1)
        return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2).to(dtype)

    def split(x: torch.Tensor) -> torch.Tensor:
        return x.unflatten(-1, (heads, -1))

    h = F.layer_norm(x, (dim,), eps=eps) * (1 + scale1) + shift1
    q = rotated(normed("self_attn.norm_q", _linear(p, "self_attn.q", h, dtype)))
    k = rotated(normed("self_attn.norm_k", _linear(p, "self_attn.k", h, dtype)))
    v = split(_linear(p, "self_attn.v", h, dtype))
    places = None if whose is None else _places(q, k, *whose)
    x = x + _linear(p, "self_attn.o", _attend(q, k, v), dtype) * gate1

    h = _norm(x, p["norm3.weight"], p["norm3.bias"], eps)
    q = split(normed("cross_attn.norm_q", _linear(p, "cross_attn.q", h, dtype)))
    k = split(normed("cross_attn.norm_k", _linear(p, "cross_attn.k", text, dtype)))
    out = _attend(q, k, split(_linear(p, "cross_attn.v", text, dtype)))
    k = split(normed("cross_attn.norm_k_img", _linear(p, "cross_attn.k_img", image, dtype)))
    out = out + _attend(q, k, split(_linear(p, "cross_attn.v_img", image, dtype)))
    x = x + _linear(p, "cross_attn.o", out, dtype)

    h = _norm(x, p["norm_x.weight"], p["norm_x.bias"], eps)
    batch, frames = audio.shape[:2]
    q = split(_linear(p, "audio_cross_attn.q_linear", h, dtype))
    k, v = _linear(p, "audio_cross_attn.kv_linear", audio, dtype).unflatten(-1, (2, heads, -1)).unbind(-3)
    if places is not None and whose is not None:
        q = _turned(q, places)
        middles = key_positions(2, k.shape[2] // 2, k.device).repeat(frames)
        k = _turned(k.flatten(1, 2), middles * whose[1][:, None]).view_as(k)
    q, k, v = q.unflatten(1, (frames, -1)).flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    out = _attend(q, k, v).unflatten(0, (batch, frames)).flatten(1, 2)
    x = x + _linear(p, "audio_cross_attn.proj", out, dtype)

    h = F.layer_norm(x, (dim,), eps=eps) * (1 + scale2) + shift2
    h = F.gelu(_linear(p, "ffn.0", h, dtype), approximate="tanh")
    return x + _linear(p, "ffn.2", h, dtype) * gate2
