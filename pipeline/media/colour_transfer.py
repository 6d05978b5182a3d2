"""Colours by covariance and by histogram, as the package color-matcher has them: ``mkl``, ``hm`` and both.

F. Pitié and A. Kokaram, "The Linear Monge-Kantorovitch Linear Colour Mapping", 2007. Frame by frame, on the frames'
own device, in the range that they have; results are not clipped. Knows no windows and no files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_FLAT = 1e-5  # a spread that is rounding: in such a direction of colours a frame becomes the reference's mean


@dataclass(frozen=True)
class Spread:
    """Mean [3, 1] float32 and covariance [3, 3] float64 of an image's colours."""

    mean: Tensor
    covariance: Tensor


@dataclass(frozen=True)
class Histogram:
    """Of each channel: its values in order, and the share of pixels that have them or less (float64)."""

    channels: tuple[tuple[Tensor, Tensor], ...]


def colour_transfer(method: str, reference: Tensor) -> Callable[[Tensor], Tensor]:
    """What brings frames [3, T, H, W] to the colours of a reference [3, H, W].

    Args:
        method: "mkl", "hm" or "hm-mkl-hm".
    """
    pixels = reference.float().flatten(1)
    spread, histogram = _spread(pixels), _histogram(pixels)
    stages = {
        "mkl": lambda frame: _by_covariance(frame, spread),
        "hm": lambda frame: _by_histogram(frame, histogram),
    }

    def match(frames: Tensor) -> Tensor:
        matched = []
        for frame in frames.unbind(1):
            colours = frame.float().flatten(1)
            for stage in method.split("-"):
                colours = stages[stage](colours)
            matched.append(colours.view_as(frame))
        return torch.stack(matched, dim=1).to(frames.dtype)

    return match


def _spread(pixels: Tensor) -> Spread:
    mean = pixels.double().mean(dim=1, keepdim=True)
    centred = pixels.double() - mean
    return Spread(mean.float(), centred @ centred.T / (pixels.shape[1] - 1))


def _by_covariance(pixels: Tensor, reference: Spread) -> Tensor:
    own = _spread(pixels)
    values, vectors = torch.linalg.eigh(own.covariance)
    deviations = values.clamp(min=0).sqrt()
    inverse = torch.where(deviations > _FLAT, 1 / deviations.clamp(min=_FLAT), 0)
    root, back = vectors * deviations, vectors * inverse
    inner, turns = torch.linalg.eigh(root.T @ reference.covariance @ root)
    middle = (turns * inner.clamp(min=0).sqrt()) @ turns.T
    matrix = back @ middle @ back.T
    return (matrix @ (pixels - own.mean).double() + reference.mean).float()


def _histogram(pixels: Tensor) -> Histogram:
    channels = []
    for channel in pixels:
        values, counts = torch.unique(channel, return_counts=True)
        channels.append((values, counts.cumsum(0).double() / channel.numel()))
    return Histogram(tuple(channels))


def _by_histogram(pixels: Tensor, reference: Histogram) -> Tensor:
    matched = []
    for channel, (values, shares) in zip(pixels, reference.channels, strict=True):
        _, places, counts = torch.unique(channel, return_inverse=True, return_counts=True)
        own = counts.cumsum(0).double() / channel.numel()
        matched.append(_interpolated(own, shares, values)[places])
    return torch.stack(matched)


def _interpolated(at: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """Values of a piecewise linear function; before its first place and after its last it is constant."""
    if len(places) == 1:
        return values.expand(len(at))
    upper = torch.searchsorted(places, at).clamp(1, len(places) - 1)
    lower = upper - 1
    slope = (values[upper].double() - values[lower].double()) / (places[upper] - places[lower])
    found = values[lower].double() + slope * (at - places[lower])
    found = torch.where(at <= places[0], values[0].double(), found)
    return torch.where(at >= places[-1], values[-1].double(), found).float()
