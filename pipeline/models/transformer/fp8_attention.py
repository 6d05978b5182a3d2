"""Self-attention in 8-bit floats, by cuDNN through NVIDIA's package nvidia-cudnn-frontend (module ``cudnn``).

Queries, keys and values are rounded to e4m3 with one scale each, the probabilities inside the kernel with a fixed
one. cuDNN's result, which is e4m3 as well on Hopper, goes as it is into an 8-bit product, and is otherwise read back
to the inputs' dtype. Nothing waits for the card: scales are computed and stay there. Where queries and keys are not
of one length (cross-attention, whose keys are few) attention stays in 16 bits.

API: ``pygraph.sdpa_fp8`` in NVIDIA/cudnn-frontend, docs/operations/Attention.md and samples/cpp/sdpa/fp8_fwd.cpp.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ...errors import InputError, Unavailable, in_short
from ...quantisation.activations import Quantised
from ...quantisation.triton_probe import triton_kernels

E4M3 = torch.float8_e4m3fn
LARGEST = torch.finfo(E4M3).max
SMALLEST = 1e-30  # of a largest magnitude, so that zeros have a scale
EXPONENT = 0x7F800000  # the bits of a float32 that say its power of two
HEAD_DIMS = range(16, 129, 16)

AttentionFunction = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]
ScaledCast = Callable[[torch.Tensor, torch.Tensor, torch.dtype], torch.Tensor]


def scale_of(x: torch.Tensor) -> torch.Tensor:
    """The largest power of two that keeps ``x`` within e4m3: a float32 on x's device, without waiting for it.

    A power of two, since multiplying by it rounds nothing; a float loses no precision by a scale that is up to
    half of what it could be.
    """
    low, high = torch.aminmax(x)
    largest = torch.maximum(-low, high).float().clamp_min(SMALLEST)
    return (LARGEST / largest).view(torch.int32).bitwise_and(EXPONENT).view(torch.float32)


def scaled_cast(x: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``x * scale`` in ``dtype``, from or to e4m3; ``scale`` is one float32."""
    if x.dtype == E4M3:
        return x.to(dtype).mul_(scale)
    return (x * scale).to(dtype)


@dataclass(frozen=True)
class _Graph:
    """A built cuDNN graph: what it is called with (tensors by name) and its workspace in bytes."""

    graph: Any
    tensors: dict[str, Any]
    workspace: int


class Fp8Attention:
    """See ``attention.AttentionFunction``. Keeps a cuDNN handle and a graph for each shape.

    Args:
        otherwise: the attention of queries and keys of different lengths.

    Attributes:
        cast: ``scaled_cast``, or Triton's.

    Raises:
        InputError: the package or cuDNN cannot do it on this card; says why.
    """

    def __init__(self, device: torch.device, otherwise: AttentionFunction) -> None:
        self._otherwise = otherwise
        self._graphs: dict[torch.Size, _Graph] = {}
        self.cast: ScaledCast = scaled_cast
        if not isinstance(triton_kernels(device), Unavailable):
            from .pointwise_triton import scaled_cast as fused

            self.cast = fused
        try:
            import cudnn

            self._cudnn = cudnn
            with torch.cuda.device(device):
                self._handle = cudnn.create_handle()
            weakref.finalize(self, cudnn.destroy_handle, self._handle).atexit = False
            # of the probabilities, which are 0 to 1
            self._scale_s = torch.full((1,), LARGEST, device=device)
            self._descale_s = 1 / self._scale_s
            # the largest probability and result, which nobody reads
            self._amax_s, self._amax_o = torch.empty(1, device=device), torch.empty(1, device=device)
            self(*(torch.zeros(1, 256, 1, 128, device=device, dtype=torch.bfloat16) for _ in range(3)))
        except Exception as error:  # of any kind: it loads libraries of its own, and their errors differ
            raise _refusal(error) from error

    def __call__(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """q, k, v [B, L, H, D] in 16 bits; returns the same."""
        if q.shape != k.shape:
            return self._otherwise(q, k, v)
        return self.cast(*self._attend(q, k, v), q.dtype)

    def quantised(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Quantised:
        """q, k, v [1, L, H, D] in 16 bits; returns [L, H * D] as cuDNN has rounded it, for an 8-bit product."""
        out, scale = self._attend(q, k, v)
        return Quantised(out[0].flatten(-2), scale.expand(q.shape[1], 1).contiguous())

    def _attend(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The result as e4m3, and what it is to be multiplied by."""
        with torch.cuda.device(q.device):
            scales = [scale_of(x) for x in (q, k, v)]
            packed = [self.cast(x.contiguous(), scale, E4M3) for x, scale in zip((q, k, v), scales, strict=True)]
            return self.multiply(packed, scales), 1 / scales[2]

    def multiply(self, packed: Sequence[torch.Tensor], scales: Sequence[torch.Tensor]) -> torch.Tensor:
        """Queries, keys and values as e4m3, contiguous, with what they were multiplied by -> the result as e4m3.

        The result is multiplied by the values' scale: none of it is larger than the largest value.
        """
        (q, k, v), device = packed, packed[0].device
        built = self._graph(q.shape)
        descales = [1 / scale for scale in scales]
        out = torch.empty(q.shape, device=device, dtype=E4M3)
        workspace = torch.empty(max(1, built.workspace), device=device, dtype=torch.uint8)
        given = {
            **{"q": q, "k": k, "v": v},
            **{"descale_q": descales[0], "descale_k": descales[1], "descale_v": descales[2]},
            **{"descale_s": self._descale_s, "scale_s": self._scale_s, "scale_o": scales[2]},
            **{"o": out, "amax_s": self._amax_s, "amax_o": self._amax_o},
        }
        # addresses, since not all versions of the package know tensors of 8-bit floats
        pack = {built.tensors[name]: tensor.data_ptr() for name, tensor in given.items()}
        self._cudnn.set_stream(handle=self._handle, stream=torch.cuda.current_stream(device).cuda_stream)
        built.graph.execute(pack, workspace.data_ptr(), handle=self._handle)
        return out

    def _graph(self, shape: torch.Size) -> _Graph:
        if shape not in self._graphs:
            if shape[-1] not in HEAD_DIMS:
                raise InputError(
                    f"--attention cudnn_fp8 needs heads of 16, 32, ... or 128 channels; this model's have {shape[-1]}. "
                    "Use --attention auto."
                )
            try:
                self._graphs[shape] = self._build(*shape)
            except Exception as error:
                raise _refusal(error) from error
        return self._graphs[shape]

    def _build(self, batch: int, length: int, heads: int, width: int) -> _Graph:
        types = self._cudnn.data_type
        graph = self._cudnn.pygraph(
            io_data_type=types.FP8_E4M3,
            intermediate_data_type=types.FLOAT,
            compute_data_type=types.FLOAT,
            handle=self._handle,
        )
        # cuDNN's order is batch, heads, length, channels; how they lie in memory is told by the strides.
        dim, stride = [batch, heads, length, width], [length * heads * width, width, heads * width, 1]
        one = {"dim": [1, 1, 1, 1], "stride": [1, 1, 1, 1]}
        names = ("descale_q", "descale_k", "descale_v", "descale_s", "scale_s", "scale_o")
        tensors = {
            **{n: graph.tensor(name=n, dim=dim, stride=stride, data_type=types.FP8_E4M3) for n in ("q", "k", "v")},
            **{n: graph.tensor(name=n, data_type=types.FLOAT, **one) for n in names},
        }
        o, _, amax_s, amax_o = graph.sdpa_fp8(**tensors, attn_scale=width**-0.5, is_inference=True)
        o.set_output(True).set_dim(dim).set_stride(stride).set_data_type(types.FP8_E4M3)
        for amax in (amax_s, amax_o):
            amax.set_output(True).set_dim([1, 1, 1, 1]).set_stride([1, 1, 1, 1]).set_data_type(types.FLOAT)
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([self._cudnn.heur_mode.A, self._cudnn.heur_mode.FALLBACK])
        graph.check_support()
        graph.build_plans()
        return _Graph(graph, {**tensors, "o": o, "amax_s": amax_s, "amax_o": amax_o}, graph.get_workspace_size())


def _refusal(error: Exception) -> InputError:
    if isinstance(error, InputError):
        return error
    return InputError(f"--attention cudnn_fp8 does not work here ({in_short(error)}). Use --attention auto.")
