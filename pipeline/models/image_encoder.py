"""CLIP's vision tower (ViT-H/14): the reference image as tokens that the transformer attends to.

The network is transformers' ``CLIPVisionModel``, built one layer short, since the features are those
of the last layer but one. This module finds out the dimensions, brings the names of every publisher's
file to transformers' and prepares the image. It does not know how the image was cropped or what
follows the features.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..checkpoints.files import Tensors, open_tensors
from ..checkpoints.load import fill
from ..checkpoints.shapes import check_names, dimensions
from ..errors import InputError
from ..residency.slab import HostWeights

if TYPE_CHECKING:  # seconds to import, and not needed where nothing is loaded
    from transformers import CLIPVisionConfig, CLIPVisionModel

WHAT = "the image encoder (CLIP, --clip_vision)"
MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training images, RGB in [0, 1]
STD = (0.26862954, 0.26130258, 0.27577711)

_NAMES = {
    "cls_embedding": "embeddings.class_embedding",
    "pos_embedding": "embeddings.position_embedding.weight",
    "patch_embedding.weight": "embeddings.patch_embedding.weight",
    "pre_norm.weight": "pre_layrnorm.weight",  # transformers' spelling
    "pre_norm.bias": "pre_layrnorm.bias",
    "post_norm.weight": "post_layernorm.weight",
    "post_norm.bias": "post_layernorm.bias",
}
_LAYER_NAMES = {
    "norm1": "layer_norm1",
    "norm2": "layer_norm2",
    "attn.to_qkv": "self_attn.to_qkv",
    "attn.proj": "self_attn.out_proj",
    "mlp.0": "mlp.fc1",
    "mlp.2": "mlp.fc2",
}


class ImageEncoder:
    """An image in, features out.

    Args:
        model: the vision tower without its last layer.
        image_size: height and width in pixels that it sees.
    """

    def __init__(self, model: CLIPVisionModel, image_size: int) -> None:
        self.model = model
        self.image_size = image_size
        self._weights = HostWeights()

    def move_to(self, device: torch.device | str) -> None:
        """Move the weights."""
        self._weights.move([self.model], device)

    @torch.no_grad()
    def encode(self, image: torch.Tensor, crop: str = "") -> torch.Tensor:
        """Features [1 + patches, dim] (257 x 1280 for ViT-H) of an image [3, H, W] with values in [-1, 1].

        The image is squeezed to a square, not cropped, without antialiasing, as upstream does. The
        features are on the model's device in its dtype.

        Args:
            crop: "center": see the middle of it alone, antialiased and in 8 bits, as ComfyUI does; "squeeze": so
                see all of it, squeezed.
        """
        pixels = image[None].to(self.model.device, torch.float32)
        if crop:
            pixels = _as_comfyui(pixels * 0.5 + 0.5, self.image_size, crop == "center")
        else:
            pixels = _squeezed(pixels, self.image_size)
        mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
        return self.model(pixel_values=((pixels - mean) / std).to(self.model.dtype)).last_hidden_state[0]


def _squeezed(pixels: torch.Tensor, side: int) -> torch.Tensor:
    return F.interpolate(pixels, size=(side, side), mode="bicubic", align_corners=False) * 0.5 + 0.5


def _as_comfyui(pixels: torch.Tensor, side: int, centre: bool) -> torch.Tensor:
    """ComfyUI's ``clip_preprocess`` but for the normalisation: [1, 3, H, W] in [0, 1] -> the same of side x side."""
    height, width = pixels.shape[2:]
    if (height, width) != (side, side):
        scale = side / min(height, width)
        size = (round(scale * height), round(scale * width)) if centre else (side, side)
        pixels = F.interpolate(pixels, size=size, mode="bicubic", antialias=True)
        top, left = (size[0] - side) // 2, (size[1] - side) // 2
        pixels = pixels[:, :, top : top + side, left : left + side]
    return torch.clip(255.0 * pixels, 0, 255).round() / 255.0


def load_image_encoder(path: str | Path, device: torch.device | str, dtype: torch.dtype) -> ImageEncoder:
    """Load CLIP's vision tower.

    Args:
        path: ``models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth`` (its text half is not read),
            or a file with transformers' names such as ``clip_vision_h.safetensors``.
        device, dtype: where and in what the weights are kept.

    Raises:
        InputError: the file is missing, damaged or another model's.
    """
    from transformers import CLIPVisionModel

    tensors = open_tensors(path, WHAT).without_prefix("visual.", "vision_model.").renamed(_transformers_name)
    tensors = _in_transformers_shapes(tensors)
    config = _config(tensors)
    with torch.device("meta"):
        model = CLIPVisionModel(config)
    tower = getattr(model, "vision_model", model)  # transformers 4 nests it, 5 does not
    fill(tower, tensors, WHAT, dtype=dtype, device=device)
    # the one buffer that no checkpoint holds
    tower.embeddings.position_ids = torch.arange(tower.embeddings.num_positions, device=device).expand(1, -1)
    return ImageEncoder(model.eval(), config.image_size)


def _transformers_name(name: str) -> str:
    """Wan's name of a tensor as transformers calls it; other names stay."""
    layer = re.fullmatch(r"transformer\.(\d+)\.(.+)\.(weight|bias)", name)
    if layer and layer[2] in _LAYER_NAMES:
        return f"encoder.layers.{layer[1]}.{_LAYER_NAMES[layer[2]]}.{layer[3]}"
    return _NAMES.get(name, name)


def _in_transformers_shapes(tensors: Tensors) -> Tensors:
    """Wan's embeddings have leading axes of size 1, and its queries, keys and values are one matrix."""
    changed = {}
    for name in ("embeddings.class_embedding", "embeddings.position_embedding.weight"):
        if name in tensors and tensors.shape(name)[0] == 1:
            changed[name] = tensors[name].squeeze()
    for name in tensors:
        if ".self_attn.to_qkv." in name:
            for part, tensor in zip("qkv", tensors[name].chunk(3), strict=True):
                changed[name.replace("to_qkv", f"{part}_proj")] = tensor
    return tensors.with_tensors(changed)


def _config(tensors: Tensors) -> CLIPVisionConfig:
    """The dimensions, read off the tensors (names as transformers'), with one layer less than they have."""
    from transformers import CLIPVisionConfig

    patches = "embeddings.patch_embedding.weight"
    positions = "embeddings.position_embedding.weight"
    feed_forward = "encoder.layers.0.mlp.fc1.weight"
    check_names([patches, positions, feed_forward], tensors, WHAT)
    dim, _, patch, _ = dimensions(patches, 4, tensors, WHAT)
    grid = round((dimensions(positions, 2, tensors, WHAT)[0] - 1) ** 0.5)
    layers = (re.match(r"encoder\.layers\.(\d+)\.", name) for name in tensors)
    return CLIPVisionConfig(
        hidden_size=dim,
        intermediate_size=dimensions(feed_forward, 2, tensors, WHAT)[0],
        num_hidden_layers=max(int(layer[1]) for layer in layers if layer),
        num_attention_heads=dim // _head_width(dim, tensors),
        image_size=grid * patch,
        patch_size=patch,
        hidden_act="gelu",
        layer_norm_eps=1e-5,
    )


def _head_width(dim: int, tensors: Tensors) -> int:
    """The width of an attention head, which no tensor tells: 80 in ViT-H, 64 in the smaller towers."""
    for width in (80, 64):
        if dim % width == 0:
            return width
    raise InputError(
        f"{WHAT}: {tensors.source} is {dim} wide, which is no multiple of a head's width (80, or 64); "
        "give the vision tower of CLIP ViT-H/14."
    )
