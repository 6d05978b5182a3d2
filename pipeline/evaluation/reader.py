"""Reads a drawn face: a small network that tells from a frame how far the mouth is open, and the rest of the pose.

It was trained on frames of the demo's drawn people with their true poses, and knows no other faces. Its
own error is stored with its weights. Knows nothing of videos or speech.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import nn

from ..errors import InputError

FIELDS = ("opening", "width", "smile", "brows", "sorrow", "eyes", "gaze_x", "yaw", "x", "y", "roll")
SIDE = 192


class FaceReader(nn.Module):
    """Frames [n, 3, 192, 192] in [-1, 1] -> [n, fields]: ``FIELDS``, with x and y of the head's middle in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 48, 64, 64)
        self.layers = nn.ModuleList(
            nn.Conv2d(before, after, 5 if before == 3 else 3, stride=2, padding=2 if before == 3 else 1)
            for before, after in zip(widths, widths[1:], strict=False)
        )
        self.fine = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for width in (32, 48, 64))
        self.narrow = nn.Conv2d(64, 32, 1)
        self.hidden = nn.Linear(32 * 36, 96)
        self.out = nn.Linear(96, len(FIELDS))

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        x = frames
        for index, layer in enumerate(self.layers):
            x = F.gelu(layer(x))
            if 1 <= index <= 3:
                x = x + F.gelu(self.fine[index - 1](x))
        return self.out(F.gelu(self.hidden(self.narrow(x).flatten(1))))


def load_reader(path: Path) -> tuple[FaceReader, dict[str, str]]:
    """The network, and what is stored about it: ``error`` (mean of the opening's) and ``r`` on faces held out.

    Raises:
        InputError: the file is missing.
    """
    if not path.is_file():
        raise InputError(f"{path} is missing: it comes with this program; install it again.")
    reader = FaceReader()
    with safe_open(path, framework="pt") as file:
        reader.load_state_dict({name: file.get_tensor(name).float() for name in file.keys()})
        about = dict(file.metadata() or {})
    return reader.eval(), about


@torch.no_grad()
def read_frames(reader: FaceReader, frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """Each field's curve [n] of frames [n, 3, H, W] in [-1, 1]."""
    device = next(reader.parameters()).device
    curves = []
    for piece in frames.split(32):
        piece = piece.to(device, torch.float32)
        if piece.shape[-2:] != (SIDE, SIDE):
            piece = F.interpolate(piece, (SIDE, SIDE), mode="bilinear", antialias=True)
        curves.append(reader(piece))
    return dict(zip(FIELDS, torch.cat(curves).unbind(dim=1), strict=True))
