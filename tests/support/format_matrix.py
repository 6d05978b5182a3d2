"""How true the transformer stays in every format, with every way of applying LoRAs: the numbers of docs/formats.md.

A small random transformer is written in each format that published files have, its base and its audio layers each,
and every pair of them is run once: without a LoRA, with one, with two, and with one running beside the layers.
Measured is the relative error of the velocity against the same weights and LoRAs in float32, computed by the plain
formulas (``lora_files.applied``), and how much of the LoRA's own effect is kept: the slope of the regression of
(quantised with LoRA minus without) on (float32 with minus without). Where a file is so coarse that the model is
another one (``COARSE``), "float32" are the weights that the file stands for: the question there is what becomes of
the LoRA, not of the model.

The files of one format in both places are loaded by the engine. All other pairs are put together from the layers
that these models have, which is the same to the last bit (a test loads some pairs from their files) and makes
thousands of pairs cheap. Tests measure some pairs of every format, the page all. Products are computed in float32, by
matrices read back.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from ...pipeline.lora import Loras, open_loras
from ...pipeline.models.transformer.attention import choose_attention
from ...pipeline.models.transformer.block import Operations
from ...pipeline.models.transformer.blocks import TransformerBlocks
from ...pipeline.models.transformer.files import open_transformer
from ...pipeline.models.transformer.linear import Linear
from ...pipeline.models.transformer.loading import load_transformer
from ...pipeline.models.transformer.matrices import StorageRequest, plan_weights
from ...pipeline.models.transformer.model import Context, WanTransformer
from ...pipeline.models.transformer.pointwise import choose_pointwise
from ...pipeline.quantisation.codes import pack
from ...pipeline.quantisation.matmul import multiply_plain
from ...pipeline.quantisation.storage import PLAIN, Packed
from .gguf_files import write_gguf
from .lora_files import IN_BLOCKS, Layer, Layers, applied, comfy, kohya, random_layers
from .other_layouts import E4M3, E5M2, KIJAI_KEEPS, Weights, cast, comfy_quant, old_scaled_fp8, plain_fp8, quanto
from .random_checkpoint import Sizes, infinitetalk_weights, transformer_weights

# Rows of all matrices in the blocks are whole blocks of GGUF's K types, as in the published files.
SIZES = Sizes(dim=256, heads=2, layers=3, ffn=256, audio_hidden=128, audio_token_dim=256, audio_intermediate=256)
CPU = torch.device("cpu")
FRAMES, HEIGHT, WIDTH = 2, 8, 8  # of the latents
COARSE = 0.08  # rounding errors beyond this make the model another one


@dataclass(frozen=True)
class Format:
    """A way of keeping weights in a file.

    Attributes:
        error: relative rounding error of a normally distributed matrix.
        write: takes a path without suffix and weights, gives the path that it wrote.
    """

    name: str
    error: float
    write: Callable[[Path, Weights], Path]


def _safetensors(path: Path, tensors: Weights, header: dict[str, str] | None = None) -> Path:
    path = path.with_suffix(".safetensors")
    save_file(tensors, path, header)
    return path


def _quanto(path: Path, weights: Weights, kind: str) -> Path:
    tensors, layers = quanto(weights, kind, torch.bfloat16)
    path.with_suffix(".json").write_text(json.dumps(layers), encoding="utf-8")
    return _safetensors(path, tensors)


def _gguf(path: Path, weights: Weights, kind: str) -> Path:
    path = path.with_suffix(".gguf")
    write_gguf(path, weights, kind)
    return path


MIXED = ("blocks.0.self_attn.", "head.", "time_", "proj1")  # in floats, the rest in fp8
FORMATS = (
    Format("fp32", 0, lambda p, w: _safetensors(p, w)),
    Format("fp16", 2e-4, lambda p, w: _safetensors(p, cast(w, torch.float16))),
    Format("bf16", 1.7e-3, lambda p, w: _safetensors(p, cast(w, torch.bfloat16, "model.diffusion_model."))),
    Format("fp8 e4m3", 0.03, lambda p, w: _safetensors(p, plain_fp8(w, E4M3, KIJAI_KEEPS))),
    Format("fp8 e5m2", 0.055, lambda p, w: _safetensors(p, plain_fp8(w, E5M2, KIJAI_KEEPS))),
    Format("scaled fp8", 0.026, lambda p, w: _safetensors(p, old_scaled_fp8(w, keep=KIJAI_KEEPS))),
    Format("scaled fp8 e5m2", 0.052, lambda p, w: _safetensors(p, old_scaled_fp8(w, E5M2, keep=KIJAI_KEEPS))),
    Format("mixed fp8", 0.026, lambda p, w: _safetensors(p, *comfy_quant(w, keep=MIXED))),
    Format("int8", 0.015, lambda p, w: _safetensors(p, *comfy_quant(w, "int8_tensorwise", keep=KIJAI_KEEPS))),
    Format("int8 by rows", 0.007, lambda p, w: _safetensors(p, *comfy_quant(w, "int8_tensorwise", rows=True))),
    Format("quanto int8", 0.007, lambda p, w: _quanto(p, w, "int8")),
    Format("quanto fp8", 0.026, lambda p, w: _quanto(p, w, "fp8")),
    *(
        Format(f"GGUF {kind}", error, partial(_gguf, kind=kind))
        for kind, error in {
            "Q8_0": 0.0055,
            "Q6_K": 0.019,
            "Q5_K": 0.036,
            "Q5_1": 0.038,
            "Q5_0": 0.043,
            "Q4_K": 0.073,
            "Q4_1": 0.078,
            "IQ4_XS": 0.075,
            "IQ4_NL": 0.075,
            "Q4_0": 0.086,
            "Q3_K": 0.145,
            "Q2_K": 0.28,
        }.items()
    ),
)

# How LoRAs are applied, by name: strengths of the LoRAs, and --lora_mode. Into GGUF none is fused: it runs beside.
WAYS: dict[str, tuple[tuple[float, ...], str]] = {
    "no LoRA": ((), "auto"),
    "one LoRA": ((0.8,), "auto"),
    "two LoRAs": ((0.8, -0.5), "auto"),
    "side branch": ((0.8,), "side"),
}
WITHOUT, *WITH = WAYS
# Formats of files that are converted while they are loaded, and to what.
AT_LOAD = tuple((name, quant) for name in ("bf16", "scaled fp8", "GGUF Q4_K") for quant in ("fp8", "int8"))


@dataclass(frozen=True)
class Cell:
    """Relative error of the velocity, and how much of the LoRA's effect is kept (None without one)."""

    error: float
    slope: float | None = None


@dataclass(frozen=True)
class Matrix:
    """What was measured: ``pairs`` by way, base and audio format, ``at_load`` by way, file format and --quant."""

    pairs: dict[tuple[str, str, str], Cell]
    at_load: dict[tuple[str, str, str], Cell]


def matrix_loras() -> tuple[Layers, Layers]:
    """Two LoRAs in bf16: one of every layer, with biases, norms and modulations; one of the matrices of the blocks.

    Whole differences are as strong as the factors, so that a LoRA without them is seen to be another.
    """
    everywhere = r"self_attn|cross_attn|ffn|_embedding|time_projection|img_emb|head\.|audio"
    one = random_layers(SIZES, 16, everywhere, biases=True, norms=True, modulations=True, alpha=8.0, strength=0.4)
    second = random_layers(SIZES, 8, IN_BLOCKS, strength=0.8, seed=1)
    return {name: _in_bf16(layer, 6) for name, layer in one.items()}, {n: _in_bf16(x) for n, x in second.items()}


def _in_bf16(layer: Layer, stronger: float = 1) -> Layer:
    """The layer's tensors in bf16, differences of norms and biases ``stronger``."""
    factors = {"up": 1, "down": 1, "modulation": min(stronger, 2), "weight": stronger, "bias": stronger}
    tensors = {name: getattr(layer, name) for name in factors}
    return replace(layer, **{n: (t * factors[n]).bfloat16() for n, t in tensors.items() if t is not None})


class Workplace:
    """Writes weights and LoRAs into a folder, and loads them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.base, self.audio = transformer_weights(SIZES), infinitetalk_weights(SIZES)
        self.layers = matrix_loras()
        self.loras = tuple(
            _safetensors(folder / f"lora-{naming.__name__}", naming(layers))
            for naming, layers in zip((comfy, kohya), self.layers, strict=True)
        )
        self.inputs = _inputs()

    def write(self, form: Format) -> tuple[Path, Path]:
        """The base and the audio layers in this format."""
        stem = self.folder / form.name.replace(" ", "_")
        return form.write(stem.with_name(f"{stem.name}_base"), self.base), form.write(
            stem.with_name(f"{stem.name}_audio"), self.audio
        )

    def load(
        self, files: tuple[Path, Path], way: str, quant: str | None = None, dtype: torch.dtype = torch.float32
    ) -> Model:
        """Base and audio layers with LoRAs, as the engine loads them."""
        _, mode = WAYS[way]
        operations = Operations(choose_attention("sdpa", CPU, dtype), choose_pointwise("plain", CPU))
        blocks = TransformerBlocks(CPU, resident=SIZES.layers)
        request = StorageRequest(dtype, quant, mode)
        weights = plan_weights(open_transformer(*files), request, operations.matmuls, self.open_loras(way))
        transformer = load_transformer(weights, operations, blocks)
        return Model(transformer, self.inputs)

    def open_loras(self, way: str) -> Loras | None:
        scales, _ = WAYS[way]
        shapes = {name: tuple(tensor.shape) for name, tensor in (self.base | self.audio).items()}
        return open_loras(self.loras[: len(scales)], scales, shapes, False) if scales else None

    def expected(self, way: str, files: tuple[Path, Path] | None = None) -> Model:
        """The weights in float32, changed by the plain formulas.

        Args:
            files: take the weights that these stand for.
        """
        weights = self.base | self.audio
        if files is not None:
            tensors = open_transformer(*files)
            weights = {name: tensors[name].float() for name in weights}
        for layers, scale in zip(self.layers, WAYS[way][0], strict=False):
            weights = applied(weights, layers, scale)
        path = _safetensors(self.folder / "expected", weights)
        return self.load((path, path), WITHOUT)


class Model:
    """A loaded transformer and its embedded inputs."""

    def __init__(self, transformer: WanTransformer, inputs: Weights) -> None:
        self.transformer, self.inputs = transformer, inputs
        with torch.no_grad():
            self.text = transformer.encode_text(inputs["text"], transformer.blocks)
            self.image = transformer.encode_image(inputs["image"], transformer.blocks)
            self.speech = transformer.embed_speech(inputs["audio"])

    @torch.no_grad()
    def run(self, audio: Model | None = None) -> torch.Tensor:
        """The velocity, with the audio layers of another model if one is given."""
        audio = audio or self
        blocks = self.transformer.blocks
        own = [(block.audio_cross_attn, block.norm_x) for block in blocks]
        for block, other in zip(blocks, audio.transformer.blocks, strict=True):
            block.audio_cross_attn, block.norm_x = other.audio_cross_attn, other.norm_x
        context = Context(self.text, self.image, audio.speech)
        (velocity,) = self.transformer(self.inputs["latents"], self.inputs["reference"], 500.0, [context], blocks)
        for block, (attention, norm) in zip(blocks, own, strict=True):
            block.audio_cross_attn, block.norm_x = attention, norm
        return velocity

    def read_back(self) -> Model:
        """The same with all matrices in float32, so that running it again costs little."""
        for layer in self.transformer.modules():
            if isinstance(layer, Linear) and layer.storage is not None:
                packed = Packed(layer.storage, {name: getattr(layer, name).data for name in layer.parts}, ())
                factors = None if layer.lora_down is None or layer.lora_up is None else (layer.lora_down, layer.lora_up)
                branch = None if factors is None else (factors[0].data, factors[1].data)
                layer.store(pack(PLAIN[torch.float32].facts, packed.unpacked()), multiply_plain, branch)
        return self


def _inputs() -> Weights:
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "latents": (16, FRAMES, HEIGHT, WIDTH),
        "reference": (20, FRAMES, HEIGHT, WIDTH),
        "text": (20, SIZES.text_dim),
        "image": (16, SIZES.clip_dim),
        "audio": (4 * FRAMES - 3, 5, SIZES.audio_layers, SIZES.audio_hidden),
    }
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, of all numbers together."""
    return ((found - expected).norm() / expected.norm()).item()


def slope(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Of the regression of ``found`` on ``expected`` through the origin."""
    return ((found * expected).sum() / expected.square().sum()).item()


def every_pair() -> dict[str, list[tuple[str, str]]]:
    """All pairs of a base and an audio format, for every way of applying LoRAs."""
    names = [form.name for form in FORMATS]
    return {way: list(itertools.product(names, names)) for way in WAYS}


def some_pairs() -> dict[str, list[tuple[str, str]]]:
    """Every format with itself and with another one, without and with one LoRA; a third of them for the other ways."""
    names = [form.name for form in FORMATS]
    random.Random(0).shuffle(names)
    chosen = dict(zip(WAYS, (names, names, names[::3], names[1::3]), strict=True))
    pairs = {way: [*zip(n, n, strict=True), *zip(n, n[1:] + n[:1], strict=True)] for way, n in chosen.items()}
    return pairs | {WITHOUT: list(dict.fromkeys(itertools.chain(*pairs.values())))}


def measure(place: Workplace, files: dict[str, tuple[Path, Path]], wanted: dict[str, list[tuple[str, str]]]) -> Matrix:
    """Pairs of formats, and what is converted while loading.

    Args:
        files: base and audio layers as ``place`` wrote them, by their format.
        wanted: pairs by way; without a LoRA all that there are.
    """
    expected = {way: place.expected(way).run() for way in WAYS}
    coarse = {form.name for form in FORMATS if form.error > COARSE} & files.keys()
    pairs: dict[tuple[str, str, str], Cell] = {}
    without: dict[tuple[str, str], torch.Tensor] = {}
    at_load: dict[tuple[str, str, str], Cell] = {}
    effects: dict[tuple[float, ...], dict[tuple[str, str], torch.Tensor]] = {}
    for way, (scales, _) in WAYS.items():
        names = sorted({name for pair in wanted[way] for name in pair})
        models = {name: place.load(files[name], way).read_back() for name in names}
        found = {(base, audio): models[base].run(models[audio]) for base, audio in wanted[way]}
        if way == WITHOUT:
            without = found
        else:
            known = effects.setdefault(scales, {})
            some = [pair for pair in found if coarse & set(pair) and pair not in known]
            own = {name: place.expected(way, files[name]) for name in {name for pair in some for name in pair}}
            known |= {(base, audio): own[base].run(own[audio]) - without[base, audio] for base, audio in some}
        for pair, velocity in found.items():
            effect = effects.get(scales, {}).get(pair, expected[way] - expected[WITHOUT])
            kept = None if way == WITHOUT else slope(velocity - without[pair], effect)
            pairs[way, *pair] = Cell(error(velocity, expected[way]), kept)
    converted: dict[tuple[str, str], torch.Tensor] = {}
    for way in WAYS:
        for name, quant in AT_LOAD:
            if name in files:
                velocity = place.load(files[name], way, quant).run()
                converted.setdefault((name, quant), velocity)
                effect = expected[way] - expected[WITHOUT]
                kept = None if way == WITHOUT else slope(velocity - converted[name, quant], effect)
                at_load[way, name, quant] = Cell(error(velocity, expected[way]), kept)
    return Matrix(pairs, at_load)
