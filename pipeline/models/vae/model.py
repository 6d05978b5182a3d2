"""The Wan 2.1 VAE: pixels to latents and back, in pieces that leave as they are made.

A latent frame stands for 8x8 pixels of one frame (the first) or of four (the others). Encoding and decoding
are generators over latent frames with their own state each, so memory does not grow with the length of the
video and several may be under way on one module. The architecture is read off the checkpoint's tensors:
narrower or pruned VAEs of the same kind load too. Knows nothing about windows, references or video files.

Parameter names and arithmetic are those of the Wan 2.1 VAE (arXiv 2503.20314, section 4.1; upstream's
``wan/modules/vae.py``), latents are normalised by its published statistics.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch
from torch import nn

from ...checkpoints.files import Tensors, open_tensors
from ...checkpoints.load import fill
from ...checkpoints.shapes import check_names, dimensions
from ...errors import InputError
from ...residency.slab import HostWeights
from .kernels import PlainVaeKernels, VaeKernels
from .layers import AttentionBlock, CausalConv3d, Downsample, Head, Layer, ResidualBlock, Stream, Upsample, run
from .tiles import Cards, run_tiled

WHAT = "the Wan VAE (--vae)"
PLAIN = PlainVaeKernels("nothing else was asked for")
# Mean and standard deviation of each latent channel over Wan's training data.
LATENT_MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
LATENT_STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
_PREFIXES = ("model.", "vae.", "first_stage_model.")  # Kijai's, and those of ComfyUI's checkpoints


class Coder(nn.Module):
    """Encoder or decoder: a convolution, stages of layers, and a head of norm, SiLU and convolution.

    Args:
        in_dim, out_dim: channels that come in and go out.
        stages: lists of layers by the checkpoint's name for each, in the order of the data.

    Attributes:
        steps: everything in the order of the data.
    """

    def __init__(self, in_dim: int, out_dim: int, stages: dict[str, list[nn.Module]]) -> None:
        super().__init__()
        self.layers = [layer for stage in stages.values() for layer in stage]
        self.conv1 = CausalConv3d(in_dim, self.layers[0].in_dim, (3, 3, 3))
        for name, stage in stages.items():
            self.add_module(name, nn.ModuleList(stage))
        self.head = Head(self.layers[-1].out_dim, out_dim)
        self.steps: list[Layer] = [self.conv1, *self.layers, self.head]

    def forward(self, x: torch.Tensor, stream: Stream) -> torch.Tensor:
        """The next piece ``[b, in_dim, t, h, w]`` of a stream; advances the stream."""
        return run(self.steps, x, stream)


class WanVAE(nn.Module):
    """Encodes and decodes one video at a time, or several interleaved ones.

    Pixels are in [-1, 1], latents are normalised to about zero mean and unit variance; both leave as float32
    on the module's device, and come in any dtype from any device.

    With ``tiles`` a picture's fine features are worked on in so many tiles, each with as much of its neighbours
    as it depends on, which takes less memory and somewhat longer. Results are the same up to rounding, and those
    of one card where ``cards`` make the tiles together.

    Attributes:
        kernels: what computes between the convolutions.
    """

    stride = (4, 8, 8)  # pixels per latent over (time, height, width)

    def __init__(self, encoder: Coder, decoder: Coder, z_dim: int, kernels: VaeKernels = PLAIN) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.encoder = encoder
        self.conv1 = nn.Conv3d(2 * z_dim, 2 * z_dim, 1)
        self.conv2 = nn.Conv3d(z_dim, z_dim, 1)
        self.decoder = decoder
        self.kernels = kernels
        self._weights = HostWeights()

    def move_to(self, device: torch.device | str) -> None:
        """Move the weights, which do not change."""
        self._weights.move([self], device)

    def encode(self, video: torch.Tensor, tiles: int = 1, cards: Cards | None = None) -> torch.Tensor:
        """``[3, T, H, W]`` to ``[z, 1 + (T - 1) // 4, H/8, W/8]``; frames beyond the last whole four are ignored."""
        whole = (video.shape[1] - 1) // self.stride[0]
        rest = video[:, 1 : 1 + whole * self.stride[0]].split(self.stride[0], dim=1) if whole else ()
        return self._encode([chunk[None] for chunk in (video[:, :1], *rest)], tiles, cards)

    def encode_still(
        self, image: torch.Tensor, frames: int, tiles: int = 1, cards: Cards | None = None
    ) -> torch.Tensor:
        """Latents ``[z, 1 + (frames - 1) // 4, H/8, W/8]`` of a video that is ``image`` ``[3, H, W]``, then zeros."""
        nothing = image.new_zeros(()).expand(1, 3, self.stride[0], *image.shape[1:])
        return self._encode([image[None, :, None]] + [nothing] * ((frames - 1) // self.stride[0]), tiles, cards)

    @torch.no_grad()
    def _encode(self, pieces: list[torch.Tensor], tiles: int, cards: Cards | None) -> torch.Tensor:
        """Encode a video that comes in pieces ``[1, 3, n, H, W]``, n = 1 for the first and 4 for each other.

        A piece that comes again and again is encoded for as long as that changes anything.

        Raises:
            ValueError: the first is of another shape, or H or W is no multiple of 8.
        """
        first = pieces[0][0]
        if first.shape[:2] != (3, 1) or first.shape[2] % self.stride[1] or first.shape[3] % self.stride[2]:
            raise ValueError(f"a first frame of shape {list(first.shape)}, expected [3, 1, 8 h, 8 w]")
        steps, stream = self.encoder.steps, Stream(self.kernels)
        if tiles > 1:
            fine = 1 + max(number for number, step in enumerate(steps) if isinstance(step, Downsample))
            pieces = run_tiled(steps[:fine], pieces, self.conv1.weight, self.kernels, tiles, cards)
            steps = steps[fine:]
        statistics = self._statistics()  # a copy that waits for the card, so not for every piece
        latents, before = [], None
        for piece in pieces:
            stream.repeats = stream.repeats + 1 if piece is before else 0
            latents.append(self._normalised(run(steps, piece.to(self.conv1.weight), stream), *statistics))
            before = piece
        return torch.cat(latents, dim=1)

    def _normalised(self, encoded: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
        return (self.conv1(encoded)[0, : self.z_dim].float() - mean) / std  # the other half is the log variance

    @torch.no_grad()
    def decode_frames(
        self, latents: torch.Tensor, tiles: int = 1, clamp: bool = True, cards: Cards | None = None
    ) -> Iterator[torch.Tensor]:
        """Decode ``[z, t, h, w]``; yields pixels ``[3, n, 8 h, 8 w]``, n = 1 first, then 4 for each latent frame.

        Args:
            tiles: with one, frames leave as they are made, else when all are.
            clamp: keep pixels in [-1, 1].
        """
        mean, std = self._statistics()
        z = (latents.to(std) * std + mean)[None].to(self.conv2.weight)
        steps, stream = self.decoder.steps, Stream(self.kernels)
        pieces = z.split(1, dim=2)
        decoded: Iterable[torch.Tensor]
        if tiles == 1:
            decoded = (run(steps, self.conv2(piece), stream) for piece in pieces)
        else:
            coarse = next(number for number, step in enumerate(steps) if isinstance(step, Upsample))
            features = [run(steps[:coarse], self.conv2(piece), stream) for piece in pieces]
            del stream  # and what it remembers
            decoded = run_tiled(steps[coarse:], features, self.conv2.weight, self.kernels, tiles, cards)
        for piece in decoded:
            yield piece[0].float().clamp_(-1, 1) if clamp else piece[0].float()

    def decode(self, latents: torch.Tensor, tiles: int = 1) -> torch.Tensor:
        """``[z, t, h, w]`` to pixels ``[3, 1 + 4 (t - 1), 8 h, 8 w]``."""
        _, t, h, w = latents.shape
        size = (3, 1 + self.stride[0] * (t - 1), self.stride[1] * h, self.stride[2] * w)
        video = torch.empty(size, device=self.conv2.weight.device)
        done = 0
        for frames in self.decode_frames(latents, tiles):
            video[:, done : done + frames.shape[1]] = frames
            done += frames.shape[1]
        return video

    def _statistics(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and standard deviation of the latents, ``[z, 1, 1, 1]`` float32."""
        mean, std = torch.tensor([LATENT_MEAN, LATENT_STD], device=self.conv1.weight.device)
        return mean.view(-1, 1, 1, 1), std.view(-1, 1, 1, 1)


def load_vae(
    path: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    kernels: VaeKernels = PLAIN,
) -> WanVAE:
    """Load a Wan 2.1 VAE: ``Wan2.1_VAE.pth`` or a safetensors file of the same names, also behind a prefix.

    Args:
        path: the file.
        device: where it shall work.
        dtype: what it shall compute in.
        kernels: what computes between the convolutions (``choose_vae_kernels``).

    Raises:
        InputError: the file is missing or damaged, or is something other than a Wan 2.1 VAE.
    """
    tensors = open_tensors(path, WHAT).without_prefix(*_PREFIXES)
    z_dim = _check_kind(tensors)
    with torch.device("meta"):
        encoder = _coder(tensors, "encoder", 3, 2 * z_dim, ("downsamples", "middle"), Downsample)
        decoder = _coder(tensors, "decoder", z_dim, 3, ("middle", "upsamples"), Upsample)
        vae = WanVAE(encoder, decoder, z_dim, kernels)
    known = vae.state_dict().keys()
    unknown = [name for name in tensors if name.startswith(("encoder.", "decoder.")) and name not in known]
    if unknown:
        raise InputError(
            f"{WHAT}: {tensors.source} has {unknown[0]}, which the Wan 2.1 VAE lacks. Give the Wan 2.1 VAE "
            "(Wan2.1_VAE.pth)."
        )
    fill(vae, tensors, WHAT, dtype=dtype, device=device)
    return in_working_order(vae)


def in_working_order(vae: WanVAE) -> WanVAE:
    """The same, its kernels in memory in the order of the features (see ``layers``)."""
    for parameter in vae.parameters():
        if parameter.dim() >= 4:
            layout = torch.channels_last_3d if parameter.dim() == 5 else torch.channels_last
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return vae.eval()


def wan_vae(width: int, kernels: VaeKernels = PLAIN) -> WanVAE:
    """The Wan 2.1 VAE as it was published, on the current device and without weights.

    Args:
        width: channels of the finest features.
    """
    z_dim, d = len(LATENT_MEAN), width

    def residual(in_dim: int, out_dim: int, count: int) -> list[Layer]:
        return [ResidualBlock(in_dim if number == 0 else out_dim, out_dim) for number in range(count)]

    def middle() -> list[Layer]:
        return [ResidualBlock(4 * d, 4 * d), AttentionBlock(4 * d), ResidualBlock(4 * d, 4 * d)]

    down = [
        *(*residual(d, d, 2), Downsample(d, d, over_time=False)),
        *(*residual(d, 2 * d, 2), Downsample(2 * d, 2 * d, over_time=True)),
        *(*residual(2 * d, 4 * d, 2), Downsample(4 * d, 4 * d, over_time=True)),
        *residual(4 * d, 4 * d, 2),
    ]
    up = [
        *(*residual(4 * d, 4 * d, 3), Upsample(4 * d, 2 * d, over_time=True)),
        *(*residual(2 * d, 4 * d, 3), Upsample(4 * d, 2 * d, over_time=True)),
        *(*residual(2 * d, 2 * d, 3), Upsample(2 * d, d, over_time=False)),
        *residual(d, d, 3),
    ]
    encoder = Coder(3, 2 * z_dim, {"downsamples": down, "middle": middle()})
    return WanVAE(encoder, Coder(z_dim, 3, {"middle": middle(), "upsamples": up}), z_dim, kernels)


def _check_kind(tensors: Tensors) -> int:
    """Tell a Wan 2.1 VAE from its relatives; returns the number of latent channels."""
    if any(name.startswith(("encoder.down_blocks.", "decoder.up_blocks.")) for name in tensors):
        raise InputError(
            f"{WHAT}: {tensors.source} has the tensor names of diffusers, which are not read here. "
            "Give the original Wan2.1_VAE.pth or a safetensors file with its names."
        )
    check_names(["encoder.conv1.weight", "conv1.weight", "conv2.weight", "decoder.conv1.weight"], tensors, WHAT)
    z_dim = dimensions("conv2.weight", 5, tensors, WHAT)[0]
    if z_dim != len(LATENT_MEAN):
        kind = "the Wan 2.2 VAE (48 channels)" if z_dim == 48 else f"a VAE of {z_dim} channels"
        raise InputError(
            f"{WHAT}: {tensors.source} is {kind}; InfiniteTalk works on the {len(LATENT_MEAN)} channels of the "
            "Wan 2.1 VAE: give the Wan 2.1 VAE (Wan2.1_VAE.pth)."
        )
    return z_dim


def _coder(
    tensors: Tensors,
    root: str,
    in_dim: int,
    out_dim: int,
    stages: tuple[str, ...],
    resample: type[Downsample | Upsample],
) -> Coder:
    """The encoder or decoder that the tensors under ``root`` describe (on the current device, unfilled)."""
    coder = Coder(in_dim, out_dim, {stage: _stage(tensors, f"{root}.{stage}", resample) for stage in stages})
    for before, after in zip(coder.layers, coder.layers[1:], strict=False):
        if before.out_dim != after.in_dim:
            raise InputError(
                f"{WHAT}: the {root} in {tensors.source} does not fit together: a layer gives {before.out_dim} "
                f"channels and the next takes {after.in_dim}. Is it a file for another model?"
            )
    steps = [layer.time_conv is not None for layer in coder.layers if isinstance(layer, resample)]
    if len(steps) != 3 or sum(steps) != 2:
        raise InputError(
            f"{WHAT}: the {root} in {tensors.source} resamples {len(steps)} times in space and {sum(steps)} times "
            "in time, expected 3 and 2 as in the Wan 2.1 VAE. Is it a file for another model?"
        )
    return coder


def _stage(tensors: Tensors, name: str, resample: type[Downsample | Upsample]) -> list[nn.Module]:
    """Layers ``name.0``, ``name.1``, ... as far as the tensors go."""
    numbers = [int(match[1]) for match in (re.match(rf"{re.escape(name)}\.(\d+)\.", n) for n in tensors) if match]
    return [_layer(tensors, f"{name}.{number}", resample) for number in range(max(numbers, default=0) + 1)]


def _layer(tensors: Tensors, name: str, resample: type[Downsample | Upsample]) -> nn.Module:
    """The layer whose tensors are under ``name``."""
    if f"{name}.residual.2.weight" in tensors:
        out_dim, in_dim = dimensions(f"{name}.residual.2.weight", 5, tensors, WHAT)[:2]
        return ResidualBlock(in_dim, out_dim)
    if f"{name}.to_qkv.weight" in tensors:
        return AttentionBlock(dimensions(f"{name}.to_qkv.weight", 4, tensors, WHAT)[1])
    if f"{name}.resample.1.weight" in tensors:
        out_dim, in_dim = dimensions(f"{name}.resample.1.weight", 4, tensors, WHAT)[:2]
        return resample(in_dim, out_dim, over_time=f"{name}.time_conv.weight" in tensors)
    raise InputError(f"{WHAT}: {tensors.source} lacks {name}, or it is no layer of the Wan 2.1 VAE.")
