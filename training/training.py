"""What all stages share: a clock, Muon with Adam beside it, averaged weights, steps captured as CUDA graphs.

Learning rates follow the clock, since a stage is given seconds, not steps. Knows no model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

_NEWTON_SCHULZ = ((3.4445, -4.7750, 2.0315),) * 5


@dataclass
class Clock:
    """Time given to a stage, and how the learning rate goes with it.

    Attributes:
        seconds: of the whole stage.
        warm_up: steps until the full rate.
        flat: part of the time at the full rate, before it falls to nothing in a straight line.
    """

    seconds: float
    warm_up: int = 100
    flat: float = 0.3
    started: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def part(self) -> float:
        """Of the time, that is gone: 0 to 1 and beyond."""
        return self.elapsed() / self.seconds

    def rate(self, step: int) -> float:
        falling = min(1.0, max(0.0, (1 - self.part()) / (1 - self.flat)))
        return min(1.0, (step + 1) / self.warm_up) * max(falling, 0.01)


class Optimizer:
    """Muon for matrices and kernels, Adam for all other parameters, and an average of both over time.

    Muon is RMS-matched (0.2 sqrt(larger side)), momentum 0.95; parameters of one shape go through
    Newton-Schulz together. Nothing in ``step`` waits for the device, so that a CUDA graph can hold it.
    """

    def __init__(
        self,
        matrices: list[nn.Parameter],
        others: list[nn.Parameter],
        rate: float,
        other_rate: float | None = None,
        betas: tuple[float, float] = (0.9, 0.99),
        average: float = 0.998,
        clip: float = 1.0,
    ) -> None:
        self.matrices, self.others = matrices, others
        self.rates = rate, rate if other_rate is None else other_rate
        self.betas, self.average, self.clip = betas, average, clip
        every = [*matrices, *others]
        device = every[0].device
        self.scale = torch.zeros((), device=device)  # of the learning rates; set before each step
        self.count = torch.zeros((), device=device)
        self.momentum = [torch.zeros_like(p) for p in matrices]
        self.first = [torch.zeros_like(p) for p in others]
        self.second = [torch.zeros_like(p) for p in others]
        self.averaged = [p.detach().clone() for p in every]
        self._groups: dict[tuple[int, int], list[int]] = {}
        for index, p in enumerate(matrices):
            self._groups.setdefault((p.shape[0], p[0].numel()), []).append(index)

    @torch.no_grad()
    def step(self) -> None:
        every = [*self.matrices, *self.others]
        gradients = [p.grad for p in every]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (self.clip / (norm + 1e-6)).clamp(max=1.0))
        self.count += 1
        self._muon([p.grad for p in self.matrices])
        self._adam([p.grad for p in self.others])
        # early on the average is short, so that it forgets the random start
        weight = torch.maximum(1 - self.count / (self.count + 10), torch.full_like(self.count, 1 - self.average))
        torch._foreach_lerp_(self.averaged, [p.detach() for p in every], [weight] * len(every))

    def _muon(self, gradients: list[torch.Tensor]) -> None:
        if not gradients:
            return
        torch._foreach_lerp_(self.momentum, gradients, 0.05)
        ahead = torch._foreach_lerp(gradients, self.momentum, 0.95)
        for (rows, columns), indices in self._groups.items():
            stacked = torch.stack([ahead[index].reshape(rows, columns) for index in indices])
            update = _orthogonal(stacked) * (0.2 * max(rows, columns) ** 0.5)
            for index, one in zip(indices, update, strict=True):
                p = self.matrices[index]
                p.sub_(one.reshape(p.shape) * (self.scale * self.rates[0]))

    def _adam(self, gradients: list[torch.Tensor]) -> None:
        if not gradients:
            return
        beta1, beta2 = self.betas
        torch._foreach_lerp_(self.first, gradients, 1 - beta1)
        torch._foreach_mul_(self.second, beta2)
        torch._foreach_addcmul_(self.second, gradients, gradients, 1 - beta2)
        size = torch._foreach_div(self.second, 1 - beta2**self.count)
        torch._foreach_sqrt_(size)
        torch._foreach_add_(size, 1e-8)
        update = torch._foreach_div(self.first, size)
        torch._foreach_mul_(update, self.scale * self.rates[1] / (1 - beta1**self.count))
        torch._foreach_sub_(self.others, update)

    @torch.no_grad()
    def load_average(self) -> None:
        """Put the averaged weights into the model."""
        for p, averaged in zip([*self.matrices, *self.others], self.averaged, strict=True):
            p.copy_(averaged)


def _orthogonal(matrices: torch.Tensor) -> torch.Tensor:
    """[n, rows, columns] -> the nearest matrices with equal singular values, by Newton-Schulz in bfloat16."""
    x = matrices.bfloat16() if matrices.is_cuda else matrices
    turned = x.shape[1] > x.shape[2]
    x = x.mT if turned else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for a, b, c in _NEWTON_SCHULZ:
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return (x.mT if turned else x).to(matrices.dtype)


def graphed(step: Callable[[], object], enabled: bool) -> Callable[[], object]:
    """``step`` as a CUDA graph. It reads inputs from tensors that the caller fills, and runs a few times right now.

    Its result's tensors are written anew by every call.
    """
    if not enabled:
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = step()

    def replay() -> object:
        graph.replay()
        return result

    return replay


def graphed_if_possible(step: Callable[[], object], enabled: bool) -> Callable[[], object]:
    """``graphed``, or the step as it is where that fails."""
    try:
        return graphed(step, enabled)
    except Exception as error:  # of the driver, or of an operation that no graph holds
        print(f"goes on without a CUDA graph: {error!r}"[:1000], flush=True)
        return step


def replayed(function: Callable[[torch.Tensor], torch.Tensor], enabled: bool) -> Callable[[torch.Tensor], torch.Tensor]:
    """``function`` of one tensor, always of the same shape, through a CUDA graph."""
    if not enabled:
        return function
    held: list[torch.Tensor] = []
    run: list[Callable[[], object]] = []

    def call(x: torch.Tensor) -> torch.Tensor:
        if not run:
            held.append(x.clone())
            run.append(graphed_if_possible(lambda: function(held[0]), True))
        held[0].copy_(x)
        return run[0]().clone()

    return call


def save_weights(model: nn.Module, path: Path, dtype: torch.dtype | None = None, **metadata: object) -> None:
    """The state dict as safetensors; written beside and moved, so that a stage may be cut off at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: t.detach().to("cpu", dtype or t.dtype).contiguous() for name, t in model.state_dict().items()}
    temporary = path.with_suffix(".part")
    save_file(weights, temporary, {name: str(value) for name, value in metadata.items()})
    temporary.replace(path)


def load_weights(model: nn.Module, path: Path) -> None:
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})


class Averaged:
    """The model with the averaged weights, for a while."""

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer

    def __enter__(self) -> None:
        every = [*self.optimizer.matrices, *self.optimizer.others]
        self.kept = [p.detach().clone() for p in every]
        self.optimizer.load_average()

    @torch.no_grad()
    def __exit__(self, *_: object) -> None:
        for p, kept in zip([*self.optimizer.matrices, *self.optimizer.others], self.kept, strict=True):
            p.copy_(kept)
