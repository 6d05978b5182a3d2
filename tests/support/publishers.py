"""Small weights written in the format of every publisher."""

import base64
import json
from dataclasses import dataclass, field
from functools import partial

import torch
from infinitetalk.pipeline.quantisation.rowwise import FP8_E4M3, FP8_E5M2, INT8
from infinitetalk.pipeline.quantisation.storage import PLAIN
from infinitetalk.tests.support.other_layouts import (
    E4M3,
    E5M2,
    KIJAI_KEEPS,
    cast,
    comfy_quant,
    old_scaled_fp8,
    plain_fp8,
    quanto,
)
from safetensors.torch import save_file

PREFIX = "model.diffusion_model."


@dataclass
class Written:
    """What a publisher's program wrote, the type that it keeps most matrices in, and how far off that may be."""

    tensors: dict
    kept: object
    bound: float
    metadata: dict = field(default_factory=dict)
    map: dict | None = None

    def save(self, path):
        save_file(self.tensors, path, self.metadata)
        if self.map is not None:
            path.with_suffix(".json").write_text(json.dumps(self.map))
        return path


def described(weights, kept, bound, **options):
    tensors, metadata = comfy_quant(weights, **options)
    return Written(tensors, kept, bound, metadata)


def mapped(weights, kind, kept, bound, **options):
    tensors, layers = quanto(weights, kind, **options)
    return Written(tensors, kept, bound, map=layers)


def mmgp(weights, encoded):
    tensors, layers = quanto(weights, "int8")
    text = json.dumps(layers)
    header = {"quantization_map_base64": base64.b64encode(text.encode()).decode()}
    return Written(tensors, INT8, 0.015, header if encoded else {"quantization_map": text})


FP32, FP16, BF16 = (PLAIN[dtype] for dtype in (torch.float32, torch.float16, torch.bfloat16))
LAYOUTS = {
    "fp32": lambda w: Written(w, FP32, 0),
    "fp16": lambda w: Written(cast(w, torch.float16, PREFIX), FP16, 5e-4),
    "bf16": lambda w: Written(cast(w, torch.bfloat16), BF16, 4e-3),
    "fp8 e4m3": lambda w: Written(plain_fp8(w, E4M3), FP8_E4M3, 0.06),
    "fp8 e5m2": lambda w: Written(plain_fp8(w, E5M2), FP8_E5M2, 0.08),
    "fp8 e4m3, Kijai": lambda w: Written(plain_fp8(w, E4M3, KIJAI_KEEPS), FP8_E4M3, 0.06),
    "scaled, Comfy-Org": lambda w: Written(old_scaled_fp8(w, inputs=True), FP8_E4M3, 0.04),
    "scaled, Kijai": lambda w: Written(old_scaled_fp8(w, keep=KIJAI_KEEPS, rest=torch.float32), FP8_E4M3, 0.04),
    "scaled e5m2, Kijai": lambda w: Written(old_scaled_fp8(w, E5M2, keep=KIJAI_KEEPS), FP8_E5M2, 0.08),
    "scaled, prefixed": lambda w: Written(old_scaled_fp8(w, prefix=PREFIX, full_precision=True), FP8_E4M3, 0.04),
    "scaled by rows": lambda w: Written(old_scaled_fp8(w, rows=True), FP8_E4M3, 0.04),
    "fp8, new": lambda w: described(w, FP8_E4M3, 0.04),
    "fp8 e5m2, new, in the header": lambda w: described(w, FP8_E5M2, 0.08, form="float8_e5m2", described="header"),
    "mixed": lambda w: described(w, FP8_E4M3, 0.04, keep=("blocks.0.self_attn.", "head.", "proj1"), prefix=PREFIX),
    "int8": lambda w: described(w, INT8, 0.03, form="int8_tensorwise"),
    "int8 by rows": lambda w: described(w, INT8, 0.015, form="int8_tensorwise", rows=True, described="header"),
    "int8, lightx2v": lambda w: described(w, INT8, 0.015, form="int8_tensorwise", rows=True, described="nowhere"),
    "fp8, lightx2v": lambda w: described(w, FP8_E4M3, 0.04, rows=True, described="nowhere"),
    "quanto int8": lambda w: mapped(w, "int8", INT8, 0.015),
    "quanto fp8": lambda w: mapped(w, "fp8", FP8_E4M3, 0.04),
    "quanto e5m2": lambda w: mapped(w, "fp8_e5m2", FP8_E5M2, 0.08, dtype=torch.float32),
    "quanto in part": lambda w: mapped(w, "fp8", FP8_E4M3, 0.04, keep=("time_", "norm2")),
    "Wan2GP": partial(mmgp, encoded=True),
    "Wan2GP, plain header": partial(mmgp, encoded=False),
}
PREFIXED = ("fp16", "scaled, prefixed", "mixed")


def stands_for(tensors, name):
    """The values of a weight by what the format says, apart from the engine."""
    layer = name.removesuffix(".weight")
    if f"{name}._data" in tensors:
        return tensors[f"{name}._data"].float() * tensors[f"{name}._scale"].float()
    scale = tensors.get(f"{layer}.weight_scale", tensors.get(f"{layer}.scale_weight", torch.ones(())))
    return tensors[name].float() * scale
