"""ComfyUI as the engine's host: where to compute, memory, cancelling, progress with a picture.

The only module that touches ``comfy.model_management``.
"""

from __future__ import annotations

import gc
import html
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import comfy.latent_formats
import comfy.model_management
import comfy.utils
import comfyui_version
import torch
from comfy_execution.utils import get_executing_context
from PIL import Image
from server import PromptServer

from ...pipeline.errors import InputError, printable
from ...pipeline.run.progress import Decoded, Event, Narrator, Notice, RunStarted, Step, Stopped, WindowDone, Working
from ...pipeline.settings.roles import Json
from .words import in_comfyui

GIB = 2**30
ONE_WINDOW = "WanInfiniteTalkToVideo"  # the core's node that conditions a window, in newer versions
NOTICE = "infinitetalk.notice"  # message to the browser, which shows it
PREVIEW_SIDE = 512  # pixels
_LATENT_SIDE = 8  # pixels of a latent


def device() -> str:
    """Where ComfyUI computes, as the setting ``device`` has it.

    Raises:
        InputError: it is neither a CUDA card nor the CPU.
    """
    found = comfy.model_management.get_torch_device()
    if found.type not in ("cuda", "cpu"):
        raise InputError(f"ComfyUI computes on {found.type}; InfiniteTalk needs a CUDA card, or the CPU (--cpu).")
    return str(found)


def core_node(name: str) -> Any:
    """A node that comes with ComfyUI, by the name that it has in graphs; None where this version has none."""
    nodes = sys.modules.get("nodes")  # which ComfyUI has imported long before it lists ours
    return None if nodes is None else nodes.NODE_CLASS_MAPPINGS.get(name)


def threads() -> int:
    """How many threads compute on the CPU, as the setting ``threads`` has it."""
    return torch.get_num_threads()


def computes() -> dict[str, Json]:
    """What decides the last bits of what ComfyUI computes."""
    device = comfy.model_management.get_torch_device()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"ComfyUI": comfyui_version.__version__, "PyTorch": str(torch.__version__), "the device": name}


def make_room(wanted: int) -> None:
    """Ask ComfyUI to move other models away until so many bytes are free on the card."""
    found = comfy.model_management.get_torch_device()
    if found.type != "cpu":
        comfy.model_management.free_memory(wanted, found)


@contextmanager
def guest() -> Iterator[None]:
    """A while in which the engine computes as it does on the command line; afterwards the card is as it was.

    ComfyUI runs nodes in inference mode and may have changed switches of PyTorch that decide the last bits.
    """
    with torch.inference_mode(False), torch.no_grad(), _usual_switches():
        try:
            yield
        except BaseException as error:
            traceback.clear_frames(error.__traceback__)  # which hold what was being computed
            raise
        finally:
            if comfy.model_management.get_torch_device().type != "cpu":
                gc.collect()
                comfy.model_management.soft_empty_cache()


@contextmanager
def _usual_switches() -> Iterator[None]:
    """PyTorch's own defaults of what ComfyUI's start and its ``--fast`` change."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    usual = [(matmul, "allow_fp16_accumulation", False), (cudnn, "benchmark", False)]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in usual if hasattr(owner, name)]
    math = torch.backends.cuda.fp16_bf16_reduction_math_sdp_allowed()
    try:
        for owner, name, value in usual:
            if hasattr(owner, name):
                setattr(owner, name, value)
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(False)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)
        torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(math)


def warn(text: str, node: str | None = None) -> None:
    """A sentence that must not go unseen: also as a message in the browser.

    Args:
        node: that it is about; None: the one that runs.
    """
    context, text = get_executing_context(), in_comfyui(printable(text))
    logging.warning("InfiniteTalk: %s", text)
    notice = {"node": node or (context and context.node_id), "text": text}
    PromptServer.instance.send_sync(NOTICE, notice, PromptServer.instance.client_id)


class HostProgress:
    """Shows a run on its node: a bar over the whole video, a sentence, a picture. Cancelling is noticed at every event.

    Args:
        node: id of the node that runs.
        steps: denoising steps of a window.
    """

    def __init__(self, node: str | None, steps: int) -> None:
        self._node = node
        self._parts = steps + 1  # decoding is the last part of a window
        self._bar = comfy.utils.ProgressBar(1, node_id=node)
        self._narrator = Narrator()
        self._windows = 1
        self._reached = 0
        self._text = ""

    def __call__(self, event: Event) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        match event:
            case Working() | Stopped():  # the one says nothing, the other what to do on a command line
                return
            case RunStarted():
                self._windows = event.windows
                self._show(event.windows_done, 0)
            case Step():
                self._show(event.window, event.done, None if event.estimate is None else latent_preview(event.estimate))
            case Decoded():
                self._show(event.window, self._parts - 1, Image.fromarray(event.frames[-1].numpy()))
            case WindowDone():
                self._show(event.index + 1, 0)
            case Notice(warning=True):
                self.warn(event.text)
        for line in self._narrator.tell(event):
            (self.note if line.stays else self.say)(line.text)

    def warn(self, text: str) -> None:
        warn(text, self._node)

    def note(self, text: str) -> None:
        logging.info("InfiniteTalk: %s", in_comfyui(printable(text)))
        self.say(text)

    def say(self, text: str) -> None:
        """A sentence under the node, as HTML, which is what pages take it for."""
        if self._node is not None and text != self._text:
            shown = html.escape(in_comfyui(printable(text)), quote=False)
            PromptServer.instance.send_progress_text(shown, self._node, PromptServer.instance.client_id)
            self._text = text

    def _show(self, window: int, part: int, picture: Image.Image | None = None) -> None:
        preview = None if picture is None else ("JPEG", picture, PREVIEW_SIDE)
        self._reached = max(self._reached, window * self._parts + part)  # a window may be written during the next one
        self._bar.update_absolute(self._reached, self._windows * self._parts, preview)


def latent_preview(latents: torch.Tensor) -> Image.Image | None:
    """The middle frame of latents [16, T, h, w], roughly: ComfyUI's linear map to RGB for Wan 2.1's VAE."""
    format = comfy.latent_formats.Wan21()
    if latents.shape[0] != format.latent_channels:
        return None
    middle = latents[:, latents.shape[1] // 2].float().cpu()
    factors, bias = torch.tensor(format.latent_rgb_factors), torch.tensor(format.latent_rgb_factors_bias)
    pixels = torch.einsum("chw,cr->hwr", middle, factors) + bias
    pixels = ((pixels + 1) * 127.5).nan_to_num().clamp(0, 255).to(torch.uint8)
    picture = Image.fromarray(pixels.numpy())
    return picture.resize((picture.width * _LATENT_SIDE, picture.height * _LATENT_SIDE), Image.Resampling.BICUBIC)


def has_cards() -> bool:
    """Whether the command line would compute on a card."""
    return torch.cuda.device_count() > 0
