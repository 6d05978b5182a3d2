"""Fill a module that was built on the meta device with tensors of a checkpoint.

Each tensor is read once, cast and placed where it will live, so that the peak of host memory is
the weights themselves. Every parameter must be found and every shape must agree: a checkpoint
that fits in part is an error that names the keys.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from .files import Tensors
from .reading import torch_dtype
from .shapes import check_names, check_shape


def fill(
    module: nn.Module,
    tensors: Tensors,
    what: str,
    *,
    dtype: torch.dtype | Callable[[str], torch.dtype] | None = None,
    device: torch.device | str = "cpu",
    skip: Callable[[str], bool] | None = None,
    change: Callable[[str, torch.Tensor], torch.Tensor] | None = None,
    bring: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> None:
    """Give every parameter and persistent buffer of ``module`` its tensor (in place).

    Args:
        module: built under ``torch.device("meta")``; its names are the checkpoint's names.
        tensors: where to read; names that the module lacks are ignored (the caller judges them).
        what: what the file is to the user, for messages.
        dtype: dtype to store floating point parameters in, or a function of the name; None keeps
            the file's.
        device: where the parameters live afterwards.
        skip: names for which it is true are left alone.
        change: gives the values to store for a name and its tensor, on the device, before the cast.
        bring: moves a tensor to the device; as PyTorch does unless given.

    Raises:
        InputError: a name is missing or a shape differs.
    """
    if bring is None:

        def bring(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device)

    wanted = {name: old for name, old in module.state_dict(keep_vars=True).items() if not (skip and skip(name))}
    check_names(list(wanted), tensors, what)
    for name, old in wanted.items():
        check_shape(name, tuple(old.shape), tensors, what)
        stored_as = dtype(name) if callable(dtype) else dtype
        if change is None:
            new = _placed(tensors[name], stored_as, bring)
        else:
            new = change(name, bring(tensors[name])).to(stored_as or torch_dtype(tensors.dtype(name)))
        owner, _, leaf = name.rpartition(".")
        holder = module.get_submodule(owner)
        if isinstance(old, nn.Parameter):
            holder.register_parameter(leaf, nn.Parameter(new, requires_grad=False))
        else:
            holder.register_buffer(leaf, new)


def _placed(
    tensor: torch.Tensor, dtype: torch.dtype | None, bring: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """``tensor`` in ``dtype`` on the device, cast on the side where fewer bytes are moved."""
    if dtype is None or not tensor.is_floating_point():
        return bring(tensor)
    if dtype.itemsize < tensor.element_size():
        return bring(tensor.to(dtype))
    return bring(tensor).to(dtype)
