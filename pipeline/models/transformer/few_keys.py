"""Cross-attention to few keys, in ways that pay only there.

A frame's speech: queries are folded away. With q = W_q x + b_q, a head's scores are q . k_j = x . (W_q^T k_j) +
b_q . k_j, and what it adds to the result is W_o sum_j p_j v_j = sum_j p_j (W_o v_j). A frame's 32 tokens of speech in
40 heads make 1280 columns, where queries have 5120 channels: folded, two products of all a window's tokens take a
quarter of their arithmetic, and queries are never made. The same numbers but for rounding (scores stay in float32, as
in fused attention). Folded keys and values are made anew for each pass: of the real model they take 550 MB a block
and 0.4 ms on an H200, a tenth of what they save.

Text and image: one kernel for both, and all the equal keys of a text's padding as one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
import torch.nn.functional as F

from ...errors import Unavailable, in_short
from ...quantisation.triton_probe import triton_kernels


@dataclass(frozen=True)
class FewKeys:
    """How it is computed here.

    Attributes:
        name, reason: for people.
        fold: keys or values [frames, tokens, heads, head_dim] times a layer's matrix [heads, head_dim, channels]:
            [frames, heads * tokens, channels].
        weigh: of scores [frames, pixels, heads * tokens], float32 and overwritten, to which ``offset``
            [frames, heads * tokens] is added before they are multiplied by ``scale``, the softmax over each of
            ``heads``, in ``dtype``.
        sum_of_two: of q [tokens, heads, head_dim] and twice keys and values [2, keys, heads, head_dim], the first
            one's last key counting so many times, the sum of both attentions, like q; None for what it does not take.
            PyTorch has nothing that is faster than two attentions.
    """

    name: str
    reason: str
    fold: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    weigh: Callable[[torch.Tensor, torch.Tensor, float, int, torch.dtype], torch.Tensor]
    sum_of_two: Callable[[torch.Tensor, torch.Tensor, int, torch.Tensor], torch.Tensor | None] | None = None

    def folded(
        self,
        x: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        before: tuple[torch.Tensor, torch.Tensor],
        after: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """Attention of every frame to its own keys.

        Args:
            x: [frames, pixels, channels].
            k, v: [frames, tokens, heads, head_dim].
            before, after: matrix [out, in] and bias of the layer that makes queries, and of the one after attention.

        Returns:
            [frames, pixels, channels]
        """
        heads, width = k.shape[2:]
        (query, query_bias), (output, output_bias) = before, after
        offset = (k.float() * query_bias.float().view(heads, width)).sum(-1).transpose(1, 2).flatten(1)
        keys = self.fold(k, query.unflatten(0, (heads, width)))
        weights = self.weigh(float_scores(x, keys), offset, width**-0.5, heads, x.dtype)
        del keys
        values = self.fold(v, output.t().unflatten(0, (heads, width)))
        values[:, : k.shape[1]] += output_bias  # a head's weights are one in all, so the first head brings the bias
        return torch.bmm(weights, values)


def float_scores(x: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """``x`` [frames, pixels, channels] times ``keys`` [frames, columns, channels], in float32 whatever they are in."""
    if x.dtype == torch.float32:
        return torch.bmm(x, keys.mT)
    return torch.bmm(x, keys.mT, out_dtype=torch.float32)


def fold(kv: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """See ``FewKeys.fold``: plain PyTorch."""
    frames, tokens, heads, width = kv.shape
    folded = torch.bmm(kv.permute(2, 0, 1, 3).reshape(heads, frames * tokens, width), matrix)
    return folded.unflatten(1, (frames, tokens)).transpose(0, 1).flatten(1, 2)


def weigh(scores: torch.Tensor, offset: torch.Tensor, scale: float, heads: int, dtype: torch.dtype) -> torch.Tensor:
    """See ``FewKeys.weigh``: plain PyTorch."""
    scores.add_(offset[:, None]).mul_(scale)
    return scores.unflatten(-1, (heads, -1)).softmax(-1).flatten(-2).to(dtype)


def folding_pays(dim: int, columns: int, pixels: int) -> bool:
    """Whether folding saves arithmetic and holds no more memory than queries do.

    Args:
        columns: heads times a frame's keys.
        pixels: a frame's tokens.
    """
    return columns <= dim // 2 and columns <= 2 * pixels


@cache
def choose_few_keys(kernels: str, device: torch.device, dtype: torch.dtype) -> FewKeys | Unavailable:
    """The fastest way that works here, or why there is none.

    Args:
        kernels: "plain", "triton" or "auto", as in ``pointwise.choose_pointwise``.
    """
    if device.type == "cpu" and dtype != torch.float32:
        return Unavailable("PyTorch has no products of 16 bits with float32 results on a CPU")
    plain = FewKeys("plain", "asked for", fold, weigh)
    obstacle = _obstacle(plain, device, dtype)
    if obstacle is not None:  # torch.bmm has had ``out_dtype`` since 2.8
        return Unavailable(f"PyTorch {torch.__version__}: {obstacle}")
    if kernels == "plain":
        return plain
    if dtype == torch.float32:
        return replace(plain, reason="fused ones are for 16 bits")
    triton = triton_kernels(device)
    if isinstance(triton, Unavailable):
        return replace(plain, reason=triton.reason)
    from . import few_keys_triton as fused

    fast = FewKeys("triton", "a CUDA card with Triton", fused.fold, fused.weigh, fused.sum_of_two)
    obstacle = _obstacle(fast, device, dtype)
    return fast if obstacle is None else replace(plain, reason=obstacle.reason)


def _obstacle(ways: FewKeys, device: torch.device, dtype: torch.dtype) -> Unavailable | None:
    """Why this does not work on this device, or None: it is tried on little, with the real model's heads."""
    frames, pixels, tokens, heads, width, channels = 2, 70, 32, 2, 128, 320

    def made(*shape: int, scale: float = 1.0) -> torch.Tensor:
        # Without random numbers, since those of the caller must not move: squares of integers have no pattern here.
        return torch.arange(math.prod(shape), device=device).double().square().sin().mul(scale).view(shape).to(dtype)

    x, kv = made(frames, pixels, channels), made(2, frames, tokens, heads, width)
    query = made(heads * width, channels, scale=0.1)
    output = made(channels, heads * width, scale=0.1)
    k, v = kv.unbind()
    biases = made(heads * width), made(channels)
    try:
        q = F.linear(x.float(), query.float(), biases[0].float()).unflatten(-1, (heads, width))
        exact = F.linear(_attend(q, k.float(), v.float()).flatten(-2), output.float(), biases[1].float())
        error = _relative(ways.folded(x, k, v, (query, biases[0]), (output, biases[1])), exact)
        if ways.sum_of_two is not None:
            q, first, second = made(1, pixels, heads, width), made(2, 40, heads, width), made(2, 257, heads, width)
            padded = torch.cat([first, first[:, -1:].expand(-1, 9, -1, -1)], dim=1)
            exact = sum(_attend(q.float(), *text[:, None].float()) for text in (padded, second))
            found = ways.sum_of_two(q[0], first, 10, second)
            if found is None:
                return Unavailable("it does not take what is tried here")
            error = max(error, _relative(found[None], exact))
        return None if error < 0.05 else Unavailable("it computes wrong results here")
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        return Unavailable(in_short(error))


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """[batch, tokens, heads, head_dim], in float32."""
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)


def _relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return ((found.float() - exact).norm() / exact.norm()).item()
