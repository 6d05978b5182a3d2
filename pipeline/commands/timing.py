"""What one's own card can do, in about two minutes and without weights; for ``bench``.

Times single transformer blocks and a piece of the VAE at the real sizes with random weights (they cost what
trained ones do), and multiplies: a few gigabytes are enough. What does not fit is said. Tells what a window of
each preset would take here. Knows no files.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import nn

from ..errors import Unavailable, in_short
from ..facts.attention import ATTENTION
from ..facts.buckets import target_size
from ..facts.model_sizes import VAE_WIDTH, WAN_14B, TransformerConfig
from ..facts.sizes import GIB
from ..media.audio import FPS
from ..models.transformer.attention import choose_attention
from ..models.transformer.block import IMAGE_LAYERS, TEXT_LAYERS, Block
from ..models.transformer.blocks import is_context_layer
from ..models.transformer.files import weight_dtype
from ..models.transformer.linear import Linear
from ..models.transformer.matrices import TransformerSize
from ..models.transformer.model import parameter_shapes
from ..models.transformer.rope import rope_table
from ..models.vae.kernels import choose_vae_kernels
from ..models.vae.model import WanVAE, in_working_order, wan_vae
from ..parallel.division import Division, Rates, Speed, divide
from ..planning.machine import choose_dtype, choose_operations, choose_vae, free_memory
from ..planning.memory import IMAGE_TOKENS, Workload, plan_memory
from ..planning.windows import latent_frames, tokens_per_window
from ..quantisation.codes import QUANTISERS, pack
from ..sampling.guidance import branches_of
from ..settings.definition import Settings
from ..settings.presets import preset_names, settings_with_preset
from ..settings.validation import resolve

PROMPT_TOKENS = 64  # a sentence or two
COPIED = 256 * 2**20  # bytes
SQUARE = (1024, 1024)  # a reference of which presets make their square
FLOATS = "floats"
WORTH_TELLING = 1.05  # times as fast


@dataclass(frozen=True)
class Sizes:
    """What is timed: models, and a picture of ``height`` x ``width`` pixels with ``frames`` frames."""

    transformer: TransformerConfig
    vae_width: int
    height: int
    width: int
    frames: int

    @property
    def tokens(self) -> int:
        return tokens_per_window(self.frames, self.height, self.width)


def usual_sizes(device: torch.device) -> Sizes:
    """A whole window at 480 on a card; on a CPU, where it takes hours, a little one, the rest being arithmetic."""
    return Sizes(WAN_14B, VAE_WIDTH, 128, 128, 13) if device.type == "cpu" else Sizes(WAN_14B, VAE_WIDTH, 640, 640, 81)


@dataclass(frozen=True)
class Measured:
    """Seconds of each piece, or the sentence that says why there are none.

    Attributes:
        copying: bytes a second from pinned host memory to the card; None on a CPU.
        attention: one self-attention, by backend.
        block: one block, by what its matrices are kept in (``FLOATS``, "fp8", "int8").
        decoding: the VAE's decoder for one latent frame (four frames of the video).
        cards: how many predictions are of.
        rates: what these and their links can do.
    """

    device: torch.device
    name: str
    sizes: Sizes
    copying: float | None
    attention: dict[str, float | Unavailable] = field(default_factory=dict)
    block: dict[str, float | Unavailable] = field(default_factory=dict)
    decoding: float | Unavailable = 0.0
    cards: int = 1
    rates: Rates | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of an activation."""
        return choose_dtype("auto", self.device).itemsize

    @property
    def usual_attention(self) -> str:
        """The backend that a run takes by default, and that the blocks were timed with."""
        return choose_attention("auto", self.device, choose_dtype("auto", self.device)).name


@dataclass(frozen=True)
class Prediction:
    """A preset on this machine: seconds of a forward and for a second of video, blocks that stay, GiB that it takes."""

    preset: str
    forward: float
    second_of_video: float
    resident: int
    peak: float


@torch.no_grad()
def measure(device: torch.device, sizes: Sizes, tell: Callable[[str], None] = lambda text: None) -> Measured:
    """Time everything once.

    Args:
        tell: hears what is being timed.
    """
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "the CPU"
    dtype = choose_dtype("auto", device)
    measured = Measured(device, name, sizes, _copying(device) if device.type == "cuda" else None)
    for backend in ATTENTION:
        tell(f"attention by {backend}")
        measured.attention[backend] = _attempt(partial(_attention, backend, sizes, device, dtype))
    for kept in (FLOATS, *QUANTISERS):
        tell(f"a block in {kept}")
        measured.block[kept] = _attempt(partial(time_block, kept, sizes, device, dtype))
    tell("the VAE")
    return replace(measured, decoding=_attempt(lambda: _decoding(sizes, device)))


def _attempt(work: Callable[[], float]) -> float | Unavailable:
    """Seconds, or why not: it is not installed, does not work here, or does not fit."""
    try:
        return work()
    except torch.OutOfMemoryError:
        return Unavailable("the card's memory does not suffice")
    except Exception as error:  # of any kind: some of what is tried is other people's
        return Unavailable(in_short(error))
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Median of three runs after one to warm up."""
    work()
    times = []
    for _ in range(3):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _copying(device: torch.device) -> float:
    host = torch.empty(COPIED, dtype=torch.uint8, pin_memory=True)
    on_device = torch.empty(COPIED, dtype=torch.uint8, device=device)
    return COPIED / _seconds(lambda: on_device.copy_(host, non_blocking=True), device)


def _attention(backend: str, sizes: Sizes, device: torch.device, dtype: torch.dtype) -> float:
    attend = choose_attention(backend, device, dtype)
    heads, width = sizes.transformer.num_heads, sizes.transformer.head_dim
    q, k, v = (torch.randn(1, sizes.tokens, heads, width, device=device, dtype=dtype) for _ in range(3))
    return _seconds(lambda: attend(q, k, v), device)


def time_block(kept: str, sizes: Sizes, device: torch.device, dtype: torch.dtype, attention: str = "auto") -> float:
    """Seconds of one block whose matrices are kept in ``FLOATS``, "fp8" or "int8"."""
    config = sizes.transformer
    operations = choose_operations(Settings(attention=attention), device, dtype)
    with torch.device("meta"):
        block = Block(config)
    block = block.to(dtype).to_empty(device=device).requires_grad_(False)
    for name, parameter in block.named_parameters():
        nn.init.normal_(parameter, std=0.02) if parameter.ndim > 1 else nn.init.ones_(parameter)
        if name == "modulation":
            parameter.data = parameter.data.float()
    for layer in block.modules():
        if isinstance(layer, Linear) and kept != FLOATS:
            packed = pack(QUANTISERS[kept], layer.weight.data)
            layer.store(packed, operations.matmuls.of(packed.storage))
    grid = (latent_frames(sizes.frames), sizes.height // 16, sizes.width // 16)
    x = torch.randn(sizes.tokens, config.dim, device=device, dtype=dtype)
    text, image = (torch.randn(n, config.dim, device=device, dtype=dtype) for n in (PROMPT_TOKENS, IMAGE_TOKENS))
    audio = torch.randn(grid[0], config.audio_tokens, config.audio_dim, device=device, dtype=dtype)
    keys = (
        block.cross_attn.keys_and_values(text, TEXT_LAYERS),
        block.cross_attn.keys_and_values(image, IMAGE_LAYERS),
    )
    moment, rope = torch.zeros(1, 6, config.dim, device=device), rope_table(grid, config.head_dim, device)
    return _seconds(lambda: block(x, moment, rope, *keys, audio, operations), device)


def _decoding(sizes: Sizes, device: torch.device) -> float:
    """Of the latent frames after the first two, which are shorter or still warm up."""
    vae = _random_vae(sizes.vae_width, device)
    latents = torch.randn(vae.z_dim, 4, sizes.height // 8, sizes.width // 8, device=device)
    times = []
    for frames in vae.decode_frames(latents):
        frames[0, 0, 0, 0].item()  # waits
        times.append(time.perf_counter())
    return (times[3] - times[1]) / 2


def _random_vae(width: int, device: torch.device) -> WanVAE:
    with torch.device("meta"):
        vae = wan_vae(width, choose_vae_kernels("auto", device))
    vae = vae.to(choose_vae(Settings(), device).dtype).to_empty(device=device).requires_grad_(False)
    for name, parameter in vae.named_parameters():
        if name.endswith("weight"):
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.constant_(parameter, 0 if name.endswith("bias") else 1)
    return in_working_order(vae)


def predict(measured: Measured, preset: str) -> Prediction | None:
    """What a window of a preset takes, or None where a piece of it could not be timed.

    A block's matrix products grow with the tokens, its attention (the default one) with their square. A block that
    does not stay on the card is copied in once a step, while the one before computes. Of several cards each computes
    its passes, or its part of a pass's tokens, for which all exchange theirs; the VAE works on the first.
    """
    settings = resolve(settings_with_preset(preset))
    block, attention = measured.block[settings.quant or FLOATS], measured.attention[measured.usual_attention]
    decoding = measured.decoding
    if isinstance(block, Unavailable) or isinstance(attention, Unavailable) or isinstance(decoding, Unavailable):
        return None
    height, width = target_size(settings.size, *SQUARE)
    tokens = tokens_per_window(settings.frame_num, height, width)
    growth = tokens / measured.sizes.tokens
    attention = min(attention, block)
    size = transformer_size(measured.sizes.transformer, settings.quant is not None, measured.itemsize)
    block = (block - attention) * growth + attention * growth**2
    branches = branches_of(settings)
    free, vae = free_memory(measured.device), choose_vae(settings, measured.device)
    speed = None
    if measured.rates is not None:
        speed = Speed(measured.rates, tokens, size.dim, size.blocks, size.block_parameters)

    def divided(passes: int) -> Division:
        return divide(measured.cards, passes, measured.sizes.transformer.num_heads, speed=speed)

    def computing(passes: int) -> float:
        """Seconds of a block."""
        division = divided(passes)
        exchange = 0.0 if speed is None else speed.exchange(division.sequence) / size.blocks
        return math.ceil(passes / division.guidance) * (block / division.sequence + exchange)

    work = Workload.of(settings, (height, width), measured.itemsize, divided(max(map(len, branches))))
    placement, memory = plan_memory(size, settings, work, free, vae)
    copying = 0.0 if measured.copying is None else size.block_bytes / measured.copying
    copied = size.blocks - placement.resident
    steps = sum(placement.resident * t + copied * max(t, copying) for t in map(computing, map(len, branches)))
    pixels = height * width / (measured.sizes.height * measured.sizes.width)
    decoding *= pixels * latent_frames(settings.frame_num)
    new = (settings.frame_num - settings.motion_frame) / FPS
    return Prediction(
        preset, size.blocks * computing(1), (steps + decoding) / new, placement.resident, memory.peak / GIB
    )


def transformer_size(config: TransformerConfig, quantised: bool, itemsize: int) -> TransformerSize:
    """Sizes of a transformer whose blocks' matrices are kept in 8 bits with a scale a row, or in floats."""
    shapes = parameter_shapes(config)
    in_block = {name: shape for name, shape in shapes.items() if name.startswith("blocks.0.")}
    dtype = torch.float32 if itemsize == torch.float32.itemsize else torch.bfloat16

    def kept(name: str) -> int:
        shape = shapes[name]
        if quantised and name in in_block and len(shape) == 2:
            return math.prod(shape) + 4 * shape[0]
        return math.prod(shape) * weight_dtype(dtype, name).itemsize

    block_parameters = sum(map(math.prod, in_block.values()))
    others = sum(map(math.prod, shapes.values())) - config.num_layers * block_parameters
    return TransformerSize(
        blocks=config.num_layers,
        block_parameters=block_parameters,
        other_parameters=others,
        dim=config.dim,
        ffn_dim=config.ffn_dim,
        block_bytes=sum(kept(name) for name in in_block if not is_context_layer(name)),
        context_bytes=sum(kept(name) for name in in_block if is_context_layer(name)),
        other_bytes=sum(kept(name) for name in shapes if not name.startswith("blocks.")),
        scratch=config.dim * config.ffn_dim * itemsize if quantised else 0,
    )


def describe(measured: Measured) -> str:
    """What was measured and what follows from it, as lines of text."""
    sizes = measured.sizes
    lines = [
        f"{measured.name}, {sizes.width}x{sizes.height}, {sizes.frames} frames, {sizes.tokens} tokens",
        *(f"  {f'attention, {name}':<22}{_told(found)}" for name, found in measured.attention.items()),
        *(f"  {f'a block in {name}':<22}{_told(found)}" for name, found in measured.block.items()),
        f"  {'the VAE, four frames':<22}{_told(measured.decoding)}",
    ]
    if measured.rates is not None:
        what, link = f"between {measured.cards} cards", measured.rates.link / 1e9
        lines.append(f"  {what:<22}{link:.1f} GB/s; what follows is of all of them")
    if measured.copying is not None:
        lines.append(f"  {'copying to the card':<22}{measured.copying / 1e9:.1f} GB/s")
    lines += ["", f"{'preset':<24}{'a forward':>11}{'a second of video':>20}{'memory':>10}{'blocks that stay':>18}"]
    for preset in preset_names():
        found = predict(measured, preset)
        if found is None:
            lines.append(f"{preset:<24}  a piece of it does not run here, see above")
        else:
            memory, stay = f"{found.peak:.1f} GiB", f"{found.resident} of {sizes.transformer.num_layers}"
            times = f"{_told(found.forward):>11}{_told(found.second_of_video):>20}"
            lines.append(f"{preset:<24}{times}{memory:>10}{stay:>18}")
    return "\n".join([*lines, "", *_advice(measured)])


def _told(found: float | Unavailable) -> str:
    if isinstance(found, Unavailable):
        return found.reason
    if found >= 2 * 3600:
        return f"{found / 3600:.0f} h"
    if found >= 120:
        return f"{found / 60:.0f} min"
    return f"{found:.1f} s" if found >= 1 else f"{found * 1000:.1f} ms"


def _advice(measured: Measured) -> list[str]:
    """What to set on this machine."""
    attention = {n: t for n, t in measured.attention.items() if isinstance(t, float)}
    kept = {n: t for n, t in measured.block.items() if isinstance(t, float)}
    lines = []
    usual = measured.usual_attention
    before = attention.get(usual, math.inf)
    exact = {n: t for n, t in attention.items() if ATTENTION[n].exact}
    best = min(exact, key=exact.__getitem__, default=usual)
    if best != usual and exact[best] * WORTH_TELLING < before:
        lines.append(f"--attention {best}: faster here than {usual}, which is the default, and as exact.")
        before = exact[best]
    quick = min(attention, key=attention.__getitem__, default=usual)
    if not ATTENTION[quick].exact and attention[quick] * WORTH_TELLING < before < math.inf:
        faster, bits = f"{before / attention[quick]:.2f} times as fast as {best}", ATTENTION[quick].bits
        lines.append(f"--attention {quick}: {faster}, in {bits} bits: frames change a little.")
    fastest = min(kept, key=kept.__getitem__, default=FLOATS)
    if fastest != FLOATS and FLOATS in kept:
        lines.append(
            f"--quant {fastest}: a block {kept[FLOATS] / kept[fastest]:.2f} times as fast as in 16 bits, in half the "
            "memory; frames change a little."
        )
    return lines or ["The defaults are the fastest ways here."]
