"""The demo's text and image encoders: small umT5 and CLIP networks with random weights that nobody trained.

The transformer learned from what they happen to say: the same words always give the same embeddings,
which is all that a handful of moods needs. The tokenizer is trained on the prompts' words.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from ..pipeline.checkpoints.lookup import find_text_files
from ..pipeline.models.image_encoder import ImageEncoder, load_image_encoder
from ..pipeline.models.text.encoder import TextEncoder, load_text_encoder
from ..pipeline.settings.definition import NEGATIVE_PROMPT
from ..tests.support.random_checkpoint import (
    CLIP_FILE,
    DEMO,
    T5_FILE,
    TOKENIZER_DIR,
    image_encoder_weights,
    text_encoder_weights,
)
from ..tests.support.random_tokenizer import SENTENCES, write_tokenizer
from .prompts import tokenizer_sentences

SIZES = replace(DEMO, text_dim=64, text_attn=128, text_layers=2, clip_dim=80, clip_layers=3)
TEXT_DIM, IMAGE_DIM = SIZES.text_dim, SIZES.clip_dim
_PIECES = 900


def write(folder: Path) -> None:
    """Write the two encoders and the tokenizer as Wan's folder has them; always the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_tokenizer(folder / TOKENIZER_DIR, [*SENTENCES, NEGATIVE_PROMPT, *tokenizer_sentences()], _PIECES)
    text = text_encoder_weights(SIZES, vocabulary, seed=1)
    for name in text:  # words shall stay themselves: less of what surrounds them
        if name.endswith(("attn.o.weight", "fc2.weight")):
            text[name] *= 0.25
    torch.save({name: tensor.bfloat16() for name, tensor in text.items()}, folder / T5_FILE)
    image = image_encoder_weights(SIZES, seed=1)
    torch.save({name: tensor.half() for name, tensor in image.items()}, folder / CLIP_FILE)


def load(folder: Path, device: torch.device) -> tuple[TextEncoder, ImageEncoder]:
    """Both, in float32."""
    text = load_text_encoder(find_text_files(folder / T5_FILE, None, folder), device, torch.float32)
    return text, load_image_encoder(folder / CLIP_FILE, device, torch.float32)


def padded(embedding: torch.Tensor, tokens: int = 512) -> torch.Tensor:
    """As the transformer sees a prompt: zeros after its tokens."""
    return torch.nn.functional.pad(embedding, (0, 0, 0, tokens - len(embedding)))
