"""The noise of a run: ours, which belongs to a seed and a window, and that of other packs, draw for draw.

What is known of each without computing is in ``facts/noises.py``. Knows no solver; one that adds noise draws it from
the generator of its window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch


@dataclass(frozen=True)
class Draws:
    """What is drawn in a window.

    Attributes:
        shape: of the latents, [z, T, h, w].
        held: how many of the T are held to the motion frames.
        steps: how many are taken.
        for_steps: whether the solver draws noise of that shape in every step.
        by_seed: whether it makes its noise from the seed itself.
    """

    shape: tuple[int, ...]
    held: int
    steps: int
    for_steps: bool
    by_seed: bool = False


NO_STATE = torch.empty(0, dtype=torch.uint8)


class Noise(Protocol):
    """The noise of one run, window after window."""

    def begin(self, window: int, draws: Draws) -> tuple[torch.Tensor, torch.Generator]:
        """The start noise of a window (from 0), and the generator that its solver draws from afterwards.

        Windows are asked for in their order; before the first that is asked for there may be others. The noise is
        standard normal, float32, and where it is drawn.
        """

    def state(self) -> torch.Tensor:
        """After a window: what the next one needs, uint8 [n]; empty where it needs no more than its number."""

    def restore(self, window: int, state: torch.Tensor) -> None:
        """Go on with that window from the state before it."""


class WindowNoise:
    """A generator for each window, seeded by the run's seed and the window: the same after any interruption."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self._seed = seed

    def begin(self, window: int, draws: Draws) -> tuple[torch.Tensor, torch.Generator]:
        generator = window_generator(self._seed, window)
        return _normal(draws.shape, generator), generator

    def state(self) -> torch.Tensor:
        return NO_STATE

    def restore(self, window: int, state: torch.Tensor) -> None:
        pass


class CoreNoise(WindowNoise):
    """That of ComfyUI's own samplers, one for each window (comfy/sample.py).

    Samplers that add noise in steps draw it on the device, with a generator of their own: on a CPU seeded by one more,
    on a card, where the model of card decides, by the seed (k_diffusion/sampling.py).

    Args:
        seeds: of the windows, if each has its own; the last goes for all later ones.
    """

    def __init__(self, seed: int, device: torch.device, seeds: tuple[int, ...] = ()) -> None:
        super().__init__(seed, device)
        self._device = device
        self._seeds = seeds or (seed,)

    def begin(self, window: int, draws: Draws) -> tuple[torch.Tensor, torch.Generator]:
        seed = self._seed_of(window)
        on_cpu = self._device.type == "cpu"
        added = _seeded(seed) if draws.by_seed else _seeded((seed + on_cpu) % 2**64, self._device)
        return _normal(draws.shape, _seeded(seed)), added

    def _seed_of(self, window: int) -> int:
        return self._seeds[min(window, len(self._seeds) - 1)]


class CountingCoreNoise(CoreNoise):
    """The same, each window with the next seed."""

    def _seed_of(self, window: int) -> int:
        return (self._seed + window) % 2**64


class WrapperNoise:
    """That of ComfyUI-WanVideoWrapper: one generator for the run (nodes_sampler.py).

    Its first draw, of a window's size, is used by nothing. Then each window draws its noise and, from the same
    generator, what its solver adds.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self._generator = _seeded(seed, self._place(device))
        self._next = 0

    def begin(self, window: int, draws: Draws) -> tuple[torch.Tensor, torch.Generator]:
        for number in range(self._next, window):
            self._window(number, draws)
            if draws.for_steps:
                for _ in range(draws.steps):
                    _normal(draws.shape, self._generator)
        self._next = window + 1
        return self._window(window, draws), self._generator

    def state(self) -> torch.Tensor:
        return self._generator.get_state()

    def restore(self, window: int, state: torch.Tensor) -> None:
        self._generator.set_state(state)
        self._next = window

    def _place(self, device: torch.device) -> torch.device:
        return torch.device("cpu")

    def _window(self, number: int, draws: Draws) -> torch.Tensor:
        if number == 0:
            _normal(draws.shape, self._generator)
        return _normal(draws.shape, self._generator)


class UpstreamNoise(WrapperNoise):
    """That of MeiGen's script: one generator for the run, on the device (wan/multitalk.py).

    From the second window on it also draws noise for the motion frames, before the first step and after each, which
    the result does not depend on. A card draws by how many processors it has, so another model of card draws otherwise.
    """

    def _place(self, device: torch.device) -> torch.device:
        return device

    def _window(self, number: int, draws: Draws) -> torch.Tensor:
        noise = _normal(draws.shape, self._generator)
        if number > 0:
            for _ in range(1 + draws.steps):
                _normal((draws.shape[0], draws.held, *draws.shape[2:]), self._generator)
        return noise


# how the noise of a run is made from its seed and the device that it runs on
NOISE_MAKERS: Mapping[str, Callable[[int, torch.device], Noise]] = {
    "window": WindowNoise,
    "kijai": WrapperNoise,
    "comfy": CoreNoise,
    "comfy_counting": CountingCoreNoise,
    "upstream": UpstreamNoise,
}


def window_generator(seed: int, window: int) -> torch.Generator:
    """A CPU generator for window ``window`` (from 0) of a run with this seed.

    Its first draw is the window's initial noise; solvers that add noise draw from it afterwards.
    """
    digest = hashlib.sha256(f"{seed}:{window}".encode()).digest()
    return _seeded(int.from_bytes(digest[:8], "big", signed=True))


def drawn_like(latents: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Standard normal float32 noise of that shape, drawn where the generator is and brought to that device."""
    return _normal(tuple(latents.shape), generator).to(latents.device)


def _normal(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float32, device=generator.device)


def _seeded(seed: int, device: torch.device | str = "cpu") -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)
