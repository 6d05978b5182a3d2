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

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from .pointwise import triton_obstacle


@dataclass(frozen=True)
class FewKeys:
    """How it is computed here.

    Attributes:
        name: for people.
        fold: keys or values [frames, tokens, heads, head_dim] times a layer's matrix [heads, head_dim, channels]:
            [frames, heads * tokens, channels].
        weigh: of scores [frames, pixels, heads * tokens], float32 and overwritten, to which ``offset``
            [frames, heads * tokens] is added before they are multiplied by ``scale``, the softmax over each of
            ``heads``, in ``dtype``.
        sum_of_two: of q [tokens, heads, head_dim] and twice keys and values [2, keys, heads, head_dim], the first
            one's last key counting so many times, the sum of both attentions, like q; None if they cannot be taken.
    """

    name: str
    fold: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    weigh: Callable[[torch.Tensor, torch.Tensor, float, int, torch.dtype], torch.Tensor]
    sum_of_two: Callable[[torch.Tensor, torch.Tensor, int, torch.Tensor], torch.Tensor | None]

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


def sum_of_two(q: torch.Tensor, first: torch.Tensor, last_counts: int, second: torch.Tensor) -> None:
    """See ``FewKeys.sum_of_two``: nothing of PyTorch's own is faster than two attentions."""
    return


def folding_pays(dim: int, columns: int, pixels: int) -> bool:
    """Whether folding saves arithmetic and holds no more memory than queries do.

    Args:
        columns: heads times a frame's keys.
        pixels: a frame's tokens.
    """
    return columns <= dim // 2 and columns <= 2 * pixels


@cache
def choose_few_keys(kernels: str, device: torch.device, dtype: torch.dtype) -> FewKeys | str:
    """The fastest way that works here, or why there is none.

    Args:
        kernels: "plain", "triton" or "auto", as in ``pointwise.choose_pointwise``.
    """
    plain = FewKeys("plain", fold, weigh, sum_of_two)
    obstacle = _obstacle(plain, device, dtype)
    if obstacle is not None:
        return obstacle
    if kernels == "plain" or dtype == torch.float32 or triton_obstacle(device) is not None:
        return plain
    from . import few_keys_triton

    return FewKeys("triton", few_keys_triton.fold, few_keys_triton.weigh, few_keys_triton.sum_of_two)


def _obstacle(ways: FewKeys, device: torch.device, dtype: torch.dtype) -> str | None:
    if device.type == "cpu" and dtype != torch.float32:
        return "PyTorch has no products of 16 bits with float32 results on a CPU"
    x, matrix = torch.ones(1, 16, 16, device=device, dtype=dtype), torch.eye(16, device=device, dtype=dtype)
    layer = (matrix, torch.zeros(16, device=device, dtype=dtype))
    kv = x.view(1, 16, 1, 16)
    try:  # torch.bmm has had ``out_dtype`` since 2.8, on CUDA cards
        right = (ways.folded(x, kv, kv, layer, layer) == 1).all()
        return None if right else "it computes wrong results here"
    except torch.OutOfMemoryError:
        raise
    except Exception:
        return f"PyTorch {torch.__version__} has no batched products with float32 results here (2.8 brought them)"
