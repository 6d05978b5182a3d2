"""How a layer multiplies by its matrix: floats as they are, 8 bits in 8 bits, everything else read back first.

``choose_matmuls`` looks at what was asked for; what a card can do is tried when the first matrix of that
kind turns up, and said with the reason. Knows no files and no layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch.nn.functional as F

from ..errors import InputError, Unavailable
from .activations import Activation, floats, row_slices
from .products import Product, find_product
from .rowwise import FP8_E4M3, FP8_E5M2, INT8
from .storage import Parts, Storage
from .triton_probe import triton_kernels

# Up to so many rows a matrix is read back: the keys and values of text, image and speech, so that they lose
# nothing and it costs next to nothing.
FEW_ROWS = 1024
# PyTorch's 8-bit products want rows and columns of whole 16 bytes.
_ALIGNMENT = 16
_ROWWISE = {FP8_E4M3: torch.float8_e4m3fn, FP8_E5M2: torch.float8_e5m2, INT8: torch.int8}


class Multiply(Protocol):
    """``x W^T + bias`` for x [..., in], in x's dtype; ``parts`` are those of the matrix's storage."""

    @property
    def name(self) -> str:
        """What it is called, for people, such as "int8"."""
        ...

    @property
    def reason(self) -> str:
        """Why this one, for people."""
        ...

    def quantised_dtype(self, count: int, shape: torch.Size) -> torch.dtype | None:
        """The 8 bits in which a matrix of this shape takes so many tokens, or None where it takes them in floats."""
        ...

    def matrix(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        """The matrix [out, in] in floats."""
        ...

    def __call__(self, x: torch.Tensor | Activation, parts: Parts, bias: torch.Tensor | None) -> torch.Tensor: ...


@dataclass(frozen=True)
class Floats:
    """A matrix in floats."""

    name: str = "floats"
    reason: str = "kept in floats"

    def quantised_dtype(self, count: int, shape: torch.Size) -> None:
        return None

    def matrix(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        return parts["weight"].to(dtype)

    def __call__(self, x: torch.Tensor | Activation, parts: Parts, bias: torch.Tensor | None) -> torch.Tensor:
        return F.linear(floats(x), parts["weight"], bias)


multiply_plain = Floats()


@dataclass(frozen=True)
class ReadBack:
    """A matrix that is read back into the dtype of the activations for each product.

    Attributes:
        unpack: parts to the matrix in a dtype.
    """

    reason: str
    unpack: Callable[[Parts, torch.dtype], torch.Tensor]
    name: str = "weight-only"

    def quantised_dtype(self, count: int, shape: torch.Size) -> None:
        return None

    def matrix(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        return self.unpack(parts, dtype)

    def __call__(self, x: torch.Tensor | Activation, parts: Parts, bias: torch.Tensor | None) -> torch.Tensor:
        values = floats(x)
        return F.linear(values, self.unpack(parts, values.dtype), bias)


@dataclass(frozen=True)
class EightBit:
    """An 8-bit matrix that is multiplied as it is by activations quantised row by row.

    Attributes:
        otherwise: for few rows and for shapes that the product cannot take.
    """

    product: Product
    otherwise: ReadBack
    few_rows: int = FEW_ROWS

    @property
    def name(self) -> str:
        return self.product.name

    @property
    def reason(self) -> str:
        return self.product.reason

    def quantised_dtype(self, count: int, shape: torch.Size) -> torch.dtype | None:
        return None if count <= self.few_rows or any(n % _ALIGNMENT for n in shape) else self.product.activations

    def matrix(self, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
        return self.otherwise.matrix(parts, dtype)

    def __call__(self, x: torch.Tensor | Activation, parts: Parts, bias: torch.Tensor | None) -> torch.Tensor:
        weight, shape = parts["weight"], floats(x).shape
        dtype = self.quantised_dtype(shape[:-1].numel(), weight.shape)
        if dtype is None:
            return self.otherwise(x, parts, bias)
        x = x if isinstance(x, Activation) else Activation(x)
        quantised = x.quantised(dtype, self.product.quantise)
        out = self.product.function(quantised, weight, parts["scale"], bias, x.values.dtype)
        return out.view(*shape[:-1], -1)


@dataclass(frozen=True)
class Matmuls:
    """How to multiply by the matrices of a run, whatever they are kept in.

    Attributes:
        setting: "auto", "on" or "off".
        device: where the products are computed.
        dtype: of the activations.
    """

    setting: str
    device: torch.device
    dtype: torch.dtype

    def of(self, storage: Storage) -> Multiply:
        """The way to multiply by matrices that are kept so.

        Raises:
            InputError: 8-bit products are asked for and this device does not have them; says why.
        """
        if not storage.facts.quantised:
            return multiply_plain
        if storage not in _ROWWISE:
            return ReadBack(f"{storage.name} has no products of its own", partial(unpack_by_parts, storage))
        kernels = triton_kernels(self.device)
        unpack = partial(unpack_by_parts, storage) if isinstance(kernels, Unavailable) else kernels.unpack
        product = self._obstacle(storage) or find_product(_ROWWISE[storage], self.device)
        if isinstance(product, Product):
            return EightBit(product, ReadBack("few rows", unpack))
        if self.setting == "on":
            raise InputError(f"--quant_matmul on: {product}. Use --quant_matmul auto or off.")
        return ReadBack(product.reason, unpack)

    def _obstacle(self, storage: Storage) -> Unavailable | None:
        """Why 8-bit products are out of the question, whatever the card."""
        if self.setting == "off":
            return Unavailable("asked for")
        if self.device.type != "cuda":
            device = {"cpu": "the CPU"}.get(self.device.type, self.device.type)
            return Unavailable(
                f"{device} has no fast products of {storage.name}: weights are read back for each product"
            )
        if self.setting == "auto" and self.dtype == torch.float32:
            return Unavailable("float32 is asked for, and activations in 8 bits would not keep it")
        return None


def choose_matmuls(setting: str, device: torch.device, dtype: torch.dtype) -> Matmuls:
    """How matrices are multiplied for "auto" (8 bits by 8 bits where the card can), "on" or "off".

    What the card can do is tried when ``Matmuls.of`` is first asked about 8-bit matrices.

    Raises:
        InputError: 8-bit products are asked for on a device that is no CUDA card.
    """
    if setting == "on" and device.type != "cuda":
        raise InputError(
            f"--quant_matmul on: 8-bit products need a CUDA card, this run uses {device.type}. "
            "Use --quant_matmul auto or off."
        )
    return Matmuls(setting, device, dtype)


def unpack_by_parts(storage: Storage, parts: Parts, dtype: torch.dtype) -> torch.Tensor:
    """A matrix [out, in] in ``dtype``, read back some rows at a time, without a float32 copy of the whole.

    Args:
        parts: each with the matrix's rows along its first dimension.
    """
    if dtype == torch.float32:
        return storage.unpack(parts)
    weight = parts["weight"]
    matrix = None
    for part in row_slices(len(weight), int(weight[0].nbytes * 8 / storage.facts.bits)):
        values = storage.unpack({name: tensor[part] for name, tensor in parts.items()})
        if matrix is None:
            matrix = torch.empty(len(weight), values.shape[1], dtype=dtype, device=weight.device)
        matrix[part] = values
    return matrix


WEIGHT_ONLY = Matmuls("off", torch.device("cpu"), torch.float32)
