"""A pass's tokens on several cards: each has a part of the space of every latent frame.

So speech, which belongs to a frame, and all that works token by token stay on the card; only self-attention needs
all tokens, and there each card takes some of the heads instead (Jacobs et al. 2023, DeepSpeed-Ulysses, arXiv
2309.14509). Values travel while keys are made, keys while queries are, and the second half of the heads while the first
is attended to. Attention does not ask in which order tokens come, so they stay in the order of the cards.

Applied to a model from outside, for as long as a forward takes: the model knows nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
import torch.distributed as dist

from ..models.transformer.block import Operations, SelfAttention, split_heads
from ..models.transformer.model import Context, WanTransformer
from ..models.transformer.speakers import Placed, positions, range_of, reference_map
from ..quantisation.activations import Activation
from .exchange import Arriving, cuts, gather, gather_padded, send, send_rows

Grid = tuple[int, int, int]
HEAD_GROUPS = 2  # of each card's heads, which travel one after the other


class SplitSequence:
    """One model's tokens on the cards of a group.

    Args:
        group: the cards.
    """

    def __init__(self, model: WanTransformer, group: dist.ProcessGroup) -> None:
        self._model = model
        self._group = group
        self._place, self._count = dist.get_rank(group), dist.get_world_size(group)
        self._heads = cuts(model.config.num_heads, self._count)
        self._head_groups = min(HEAD_GROUPS, model.config.num_heads // self._count)
        self._rope: tuple[Grid, torch.Tensor] | None = None
        self._frame: list[int] = []  # the tokens of a latent frame that each card has, in the forward under way
        self._tokens: list[int] = []  # and of all frames

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Have the model compute its part of every forward; all cards of the group call it with the same."""
        model, whole = self._model, (self._model.embed, self._model.rope, self._model.unpatchify)
        embed, rope, unpatchify = whole

        def embed_part(latents: torch.Tensor) -> tuple[torch.Tensor, Grid]:
            x, grid = embed(latents)
            self._frame = self._sizes(grid)
            self._tokens = [grid[0] * size for size in self._frame]
            return self._part(x, grid), grid

        def rope_part(grid: Grid) -> torch.Tensor:
            if self._rope is None or self._rope[0] != grid:
                self._rope = grid, self._part(rope(grid), grid)
            return self._rope[1]

        def unpatchify_whole(x: torch.Tensor, grid: Grid) -> torch.Tensor:
            frames = gather_padded(self._group, x.unflatten(0, (grid[0], -1)), self._sizes(grid), dim=1)
            return unpatchify(frames.flatten(0, 1), grid)

        replaced = {"embed": embed_part, "rope": rope_part, "unpatchify": unpatchify_whole}
        attentions = [block.self_attn for block in model.blocks]
        for name, function in replaced.items():
            setattr(model, name, function)
        for attention in attentions:
            attention.forward = partial(self._attend, attention)
        try:
            yield
        finally:
            for name in replaced:
                delattr(model, name)
            for attention in attentions:
                del attention.forward

    def own(self, context: Context) -> Context:
        """What this card's tokens attend to, of what all do: regions are cut as frames are."""
        speech = context.speech
        if not isinstance(speech, Placed):
            return context
        at = cuts(speech.shares.shape[1], self._count)
        shares = speech.shares[:, at[self._place] : at[self._place + 1]]
        return replace(context, speech=replace(speech, shares=shares))

    def _sizes(self, grid: Grid) -> list[int]:
        """The tokens of a frame that each card has."""
        at = cuts(grid[1] * grid[2], self._count)
        return [stop - start for start, stop in zip(at, at[1:], strict=False)]

    def _part(self, x: torch.Tensor, grid: Grid) -> torch.Tensor:
        """This card's of all tokens [N, ...]."""
        at = cuts(grid[1] * grid[2], self._count)
        return x.unflatten(0, (grid[0], -1))[:, at[self._place] : at[self._place + 1]].flatten(0, 1)

    def _attend(
        self,
        attention: SelfAttention,
        x: Activation,
        rope: torch.Tensor,
        ops: Operations,
        masks: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """As ``SelfAttention.forward``, of this card's tokens; values first, since queries and keys take longer."""
        heads, norm_rotate = attention.num_heads, ops.pointwise.norm_rotate
        values = self._to_heads(split_heads(attention.v(x), heads))
        k = norm_rotate(attention.k(x), attention.norm_k.weight, rope, heads, attention.norm_k.eps)
        keys = self._to_heads(k)
        still = None if masks is None else gather_padded(self._group, k[: self._frame[self._place]], self._frame, dim=0)
        del k
        q = norm_rotate(attention.q(x), attention.norm_q.weight, rope, heads, attention.norm_q.eps)
        queries = self._to_heads(q)
        x.release()
        places = None
        if masks is not None and still is not None:
            found = reference_map(q, still, masks, ops.attend)
            places = positions(found, self._range_of_all(found))
        results, shape, dtype = [], q.shape, q.dtype
        del q
        for number in range(self._head_groups):
            q, k, v = (part.pop(0).wait() for part in (queries, keys, values))
            found = ops.attend.among(q, k, v, None).values
            del q, k, v
            results.append(self._to_tokens(found, number, shape[-1]))
        out = torch.empty(shape, dtype=dtype, device=rope.device)
        for number, result in enumerate(results):
            came, done = result.wait(), 0
            for start, stop in self._head_cuts(number):
                size = shape[0] * (stop - start) * shape[-1]
                out[:, start:stop] = came[done : done + size].view(shape[0], stop - start, shape[-1])
                done += size
        return attention.o(Activation(out.flatten(-2))), places

    def _range_of_all(self, found: torch.Tensor) -> torch.Tensor:
        """See ``speakers.range_of``, over the tokens of all cards."""
        least, most = gather(self._group, range_of(found)).unbind(1)
        return torch.stack([least.amin(0), most.amax(0)])

    def _head_cuts(self, number: int) -> list[tuple[int, int]]:
        """The heads of each card that travel in group ``number``."""
        found = []
        for start, stop in zip(self._heads, self._heads[1:], strict=False):
            at = cuts(stop - start, self._head_groups)
            found.append((start + at[number], start + at[number + 1]))
        return found

    def _to_heads(self, x: torch.Tensor) -> list[Arriving]:
        """Begin to give each card its heads of this one's tokens [n, heads, head_dim]: a message for each group."""
        arriving = []
        for number in range(self._head_groups):
            heads = self._head_cuts(number)
            own = heads[self._place][1] - heads[self._place][0]
            pieces = [x[:, start:stop] for start, stop in heads]
            arriving.append(send(self._group, pieces, self._tokens, torch.Size((own, x.shape[-1]))))
        return arriving

    def _to_tokens(self, found: torch.Tensor, number: int, head_dim: int) -> Arriving:
        """Begin to give each card its tokens of the result [all tokens, heads * head_dim] of group ``number``."""
        own = self._tokens[self._place]
        came = [own * (stop - start) * head_dim for start, stop in self._head_cuts(number)]
        return send_rows(self._group, found.contiguous(), self._tokens, came)
