"""Several processes that call one function, as the cards of a run do; and a small transformer for them."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from infinitetalk.pipeline.facts.model_sizes import WAN_14B
from infinitetalk.pipeline.models.transformer.model import Context, WanTransformer
from infinitetalk.pipeline.parallel.cards import Cards, join
from infinitetalk.pipeline.planning.machine import choose_operations
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.tests.support.forks import FORKS
from torch import multiprocessing

SMALL = replace(WAN_14B, dim=96, num_heads=6, ffn_dim=128, num_layers=2)
SMALL = replace(SMALL, text_dim=64, image_dim=32, audio_dim=48, audio_hidden=32, audio_tokens=8, audio_features=2 * 16)


def in_processes(count: int, function: Callable[[Cards], Any]) -> list[Any]:
    """What each of so many processes returns, the first one's first; ``function`` is one of a module."""
    with socket.socket() as found, tempfile.TemporaryDirectory() as folder:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
        found.close()
        given = (count, port, function, folder)
        multiprocessing.start_processes(_work, given, count, start_method=FORKS.get_start_method())
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=False) for rank in range(count)]


def _work(rank: int, count: int, port: int, function: Callable[[Cards], Any], folder: str) -> None:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    cards = join("cpu")
    with torch.no_grad():
        torch.save(function(cards), Path(folder) / f"{rank}.pt")
    cards.wait()


def transformer() -> WanTransformer:
    """With random weights, the same in each process."""
    torch.manual_seed(0)
    model = WanTransformer(SMALL, choose_operations(Settings(), torch.device("cpu"), torch.float32))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval().requires_grad_(False)


def step(
    model: WanTransformer, height: int = 10, width: int = 14, text_blocks: Any = None, image_blocks: Any = None
) -> tuple[torch.Tensor, torch.Tensor, list[Context]]:
    """Latents, reference and the contexts of three passes: 3 latent frames, of a quarter of height times width.

    Args:
        text_blocks, image_blocks: the model's, where they are to be brought.
    """
    text_blocks, image_blocks = text_blocks or model.blocks, image_blocks or model.blocks
    torch.manual_seed(1)
    latents, reference = torch.randn(16, 3, height, width), torch.randn(20, 3, height, width)
    texts = [model.encode_text(torch.randn(count, SMALL.text_dim), text_blocks) for count in (9, 7)]
    image = model.encode_image(torch.randn(9, SMALL.image_dim), image_blocks)
    speech = model.embed_speech(torch.randn(9, 5, 2, 16))
    ways = (texts[0], speech), (texts[1], speech), (texts[1], torch.zeros_like(speech))
    return latents, reference, [Context(text, image, heard) for text, heard in ways]
