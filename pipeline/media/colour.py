"""Colour correction: frames get the mean and spread of the reference image's colours in CIE L*a*b*.

After E. Reinhard et al., "Color Transfer between Images", 2001, as upstream's
``match_and_blend_colors`` does it with scikit-image: sRGB, illuminant D65, 2 degree observer.
Works on the frames' own device, a few frames at a time; knows no windows and no files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# IEC 61966-2-1 (sRGB) to CIE XYZ, relative to the white point of D65 seen by the 2 degree observer.
_XYZ_FROM_RGB = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
_WHITE = [0.95047, 1.0, 1.08883]
_RELATIVE_FROM_RGB = [[entry / white for entry in row] for row, white in zip(_XYZ_FROM_RGB, _WHITE, strict=True)]
_RGB_FROM_RELATIVE = torch.linalg.inv(torch.tensor(_RELATIVE_FROM_RGB, dtype=torch.float64)).tolist()

# L* = 116 f(Y) - 16, a* = 500 (f(X) - f(Y)), b* = 200 (f(Y) - f(Z)).
_LAB_FROM_F = [[0.0, 116.0, 0.0], [500.0, -500.0, 0.0], [0.0, 200.0, -200.0]]
_F_FROM_LAB = torch.linalg.inv(torch.tensor(_LAB_FROM_F, dtype=torch.float64)).tolist()

_CUT = 0.008856  # CIE 1976: below it the cube root becomes a line of slope 7.787
_FLAT = 0.01  # a spread that is rounding: a grey picture has 0.001 in a* and b*; one 8-bit level is about 0.4
PIXELS_AT_ONCE = 1 << 20  # 12 MB a temporary


@dataclass(frozen=True)
class LabStatistics:
    """Mean and (population) standard deviation of an image's L*, a*, b*: float32 [3] each."""

    mean: Tensor
    std: Tensor


def lab_statistics(image: Tensor) -> LabStatistics:
    """The colours of a reference image: [3, H, W] in [-1, 1], on any device, in any float type."""
    mean, std = _moments(_lab_from_rgb(_unit_range(image)[:, None]))
    return LabStatistics(mean.flatten(), std.flatten())


def match_colour(frames: Tensor, reference: LabStatistics, strength: float) -> Tensor:
    """Shift and scale each frame's L*, a*, b* to the reference's, and blend the result in.

    Args:
        frames: [3, T, H, W] in [-1, 1].
        reference: from ``lab_statistics``.
        strength: 0 (returns ``frames`` itself) to 1 (the corrected colours alone).

    Returns:
        [3, T, H, W] in [-1, 1], of the frames' dtype and on their device. A channel without variation
        becomes the reference's mean. (Upstream does so only where the spread is exactly zero, and so
        stretches the rounding noise of a grey frame into coloured specks.)

    Raises:
        ValueError: ``strength`` is outside 0 to 1.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength must be 0 to 1, not {strength}")
    if strength == 0:
        return frames
    target_mean = reference.mean.to(frames.device).view(3, 1, 1, 1)
    target_std = reference.std.to(frames.device).view(3, 1, 1, 1)
    result = torch.empty_like(frames)
    step = max(1, PIXELS_AT_ONCE // (frames.shape[2] * frames.shape[3]))
    for start in range(0, frames.shape[1], step):
        rgb = _unit_range(frames[:, start : start + step])
        lab = _lab_from_rgb(rgb)
        mean, std = _moments(lab)
        scale = torch.where(std < _FLAT, 0, target_std / std)
        corrected = _rgb_from_lab((lab - mean) * scale + target_mean)
        result[:, start : start + step] = torch.lerp(rgb, corrected, strength) * 2 - 1
    return result


def _unit_range(colours: Tensor) -> Tensor:
    return ((colours.float() + 1) / 2).clamp(0, 1)


def _moments(lab: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel and frame, of [3, T, H, W]: two tensors [3, T, 1, 1]."""
    std, mean = torch.std_mean(lab, dim=(2, 3), correction=0, keepdim=True)
    return mean, std


def _mix(matrix: list[list[float]], channels: Tensor) -> Tensor:
    """Multiply [3, 3] with the channels of [3, ...], by hand since TF32 would round a matmul to 10 bits."""
    x, y, z = channels
    return torch.stack([a * x + b * y + c * z for a, b, c in matrix])


def _lab_from_rgb(rgb: Tensor) -> Tensor:
    """sRGB in [0, 1] to L*a*b*, [3, ...] float32 both."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055).pow(2.4), rgb / 12.92)
    relative = _mix(_RELATIVE_FROM_RGB, linear)
    f = torch.where(relative > _CUT, relative.pow(1 / 3), 7.787 * relative + 16 / 116)
    lab = _mix(_LAB_FROM_F, f)
    lab[0] -= 16
    return lab


def _rgb_from_lab(lab: Tensor) -> Tensor:
    """L*a*b* (changed in place) to sRGB clipped to [0, 1], [3, ...] float32 both. Z below zero counts as zero."""
    lab[0] += 16
    f = _mix(_F_FROM_LAB, lab)
    f[2].clamp_(min=0)
    relative = torch.where(f > 0.2068966, f.pow(3), (f - 16 / 116) / 7.787)
    linear = _mix(_RGB_FROM_RELATIVE, relative)
    rgb = torch.where(linear > 0.0031308, 1.055 * linear.clamp(min=0).pow(1 / 2.4) - 0.055, 12.92 * linear)
    return rgb.clamp(0, 1)
