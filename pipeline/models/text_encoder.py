"""umT5's encoder: prompts to the embeddings that the transformer attends to.

The network is transformers' ``UMT5EncoderModel``; this module finds out the dimensions, brings the
names of every publisher's file to transformers' and loads the weights once. It does not know about
caching (``text_cache``), guidance or the transformer's text length.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from ..weights import downloads
from ..weights.files import Tensors, open_tensors
from ..weights.load import check_names, dimensions, fill
from .tokenizer import Tokenizer, find_tokenizer, load_tokenizer, tokenizer_from_sentencepiece

if TYPE_CHECKING:  # seconds to import, and not needed where every prompt is in the cache
    from transformers import UMT5Config, UMT5EncoderModel

WHAT = "the text encoder (umT5, --text_encoder)"
EMBEDDED_TOKENIZER = "spiece_model"  # ComfyUI's files carry the bytes of spiece.model under this name

_NAMES = {
    "token_embedding.weight": "shared.weight",
    "encoder.embed_tokens.weight": "shared.weight",
    "norm.weight": "encoder.final_layer_norm.weight",
}
_BLOCK_NAMES = {
    "norm1": "layer.0.layer_norm",
    "attn.q": "layer.0.SelfAttention.q",
    "attn.k": "layer.0.SelfAttention.k",
    "attn.v": "layer.0.SelfAttention.v",
    "attn.o": "layer.0.SelfAttention.o",
    "pos_embedding.embedding": "layer.0.SelfAttention.relative_attention_bias",
    "norm2": "layer.1.layer_norm",
    "ffn.gate.0": "layer.1.DenseReluDense.wi_0",
    "ffn.fc1": "layer.1.DenseReluDense.wi_1",
    "ffn.fc2": "layer.1.DenseReluDense.wo",
}


class TextEncoder:
    """Prompts in, embeddings out.

    Args:
        model: an encoder with its weights.
        tokenizer: its tokenizer.
    """

    def __init__(self, model: UMT5EncoderModel, tokenizer: Tokenizer) -> None:
        self.model = model
        self.tokenizer = tokenizer

    def to(self, device: torch.device | str) -> TextEncoder:
        """Move the weights."""
        self.model.to(device)
        return self

    def encode(self, prompts: list[str]) -> list[torch.Tensor]:
        """Embeddings [n, dim] of each prompt, n <= 512 tokens with ``</s>``, in the model's dtype and on its device.

        Longer prompts are cut, as upstream does.
        """
        return [self.encode_ids(self.tokenizer(prompt)) for prompt in prompts]

    @torch.no_grad()
    def encode_ids(self, ids: list[int]) -> torch.Tensor:
        """Embeddings [n, dim] of n token ids.

        Upstream pads to 512 tokens, masks the padding and drops its rows; without padding the same
        rows come at a fraction of the work.
        """
        return self.model(input_ids=torch.tensor([ids], device=self.model.device)).last_hidden_state[0]


def load_text_encoder(
    path: str | Path,
    tokenizer_path: str | Path | None,
    ckpt_dir: str | Path | None,
    device: torch.device | str,
    dtype: torch.dtype,
) -> TextEncoder:
    """Load umT5's encoder and its tokenizer.

    Args:
        path: ``models_t5_umt5-xxl-enc-bf16.pth``, the same as safetensors, or a file with transformers'
            names such as ``umt5_xxl_fp16.safetensors``; also quantised, which is read back while loading.
        tokenizer_path: a tokenizer file or its folder; None takes the one inside the checkpoint, else
            the one beside it (see ``find_tokenizer``).
        ckpt_dir: the base model's folder, searched for the tokenizer.
        device, dtype: where and in what the weights are kept.

    Raises:
        InputError: the file is missing, damaged or another model's; no tokenizer is found, or it has
            more tokens than the model.
    """
    raw = open_tensors(path, WHAT)
    tensors = raw.renamed(_transformers_name)
    config = _config(tensors)
    tokenizer = _tokenizer(raw, Path(path), tokenizer_path, ckpt_dir)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{WHAT}: the tokenizer {tokenizer.source} has {tokenizer.vocab_size} tokens, the model {path} only "
            f"{config.vocab_size}; give the tokenizer that belongs to it with --tokenizer."
        )
    return TextEncoder(_model(config, tensors, device, dtype), tokenizer)


def _model(config: UMT5Config, tensors: Tensors, device: torch.device | str, dtype: torch.dtype) -> UMT5EncoderModel:
    from transformers import UMT5EncoderModel

    with torch.device("meta"):
        model = UMT5EncoderModel(config)

    def stored_as(name: str) -> torch.dtype:
        # umT5's feed-forward output overflows fp16; transformers keeps this weight in fp32 for that reason
        return torch.float32 if dtype == torch.float16 and name.endswith(".wo.weight") else dtype

    fill(model, tensors, WHAT, dtype=stored_as, device=device, optional=frozenset({"encoder.embed_tokens.weight"}))
    model.set_input_embeddings(model.shared)
    return model.eval()


def _transformers_name(name: str) -> str:
    """Wan's name of a tensor as transformers calls it; other names stay."""
    block = re.fullmatch(r"blocks\.(\d+)\.(.+)\.weight", name)
    if block and block[2] in _BLOCK_NAMES:
        return f"encoder.block.{block[1]}.{_BLOCK_NAMES[block[2]]}.weight"
    return _NAMES.get(name, name)


def _config(tensors: Tensors) -> UMT5Config:
    """The dimensions, read off the tensors (names as transformers')."""
    attention = "encoder.block.0.layer.0.SelfAttention"
    names = {
        "embedding": "shared.weight",
        "query": f"{attention}.q.weight",
        "position": f"{attention}.relative_attention_bias.weight",
        "feed_forward": "encoder.block.0.layer.1.DenseReluDense.wi_0.weight",
    }
    check_names(list(names.values()), tensors, WHAT)
    sizes = {part: dimensions(name, 2, tensors, WHAT) for part, name in names.items()}
    vocab, dim = sizes["embedding"]
    buckets, heads = sizes["position"]
    width = sizes["query"][0]
    if width % heads:
        raise InputError(
            f"{WHAT}: {tensors.source} has an attention of width {width}, not a multiple of {heads} heads."
        )
    blocks = (re.match(r"encoder\.block\.(\d+)\.", name) for name in tensors)
    from transformers import UMT5Config

    return UMT5Config(
        vocab_size=vocab,
        d_model=dim,
        d_kv=width // heads,
        d_ff=sizes["feed_forward"][0],
        num_layers=1 + max(int(block[1]) for block in blocks if block),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
        relative_attention_max_distance=128,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )


def _tokenizer(
    tensors: Tensors, path: Path, tokenizer_path: str | Path | None, ckpt_dir: str | Path | None
) -> Tokenizer:
    """The tokenizer that was asked for, else the one inside the checkpoint, else the one beside it."""
    if tokenizer_path is None and EMBEDDED_TOKENIZER in tensors:
        model = tensors[EMBEDDED_TOKENIZER].numpy().tobytes()
        return tokenizer_from_sentencepiece(model, f"{EMBEDDED_TOKENIZER} in {path}")
    found = find_tokenizer(tokenizer_path and Path(tokenizer_path), path, ckpt_dir and Path(ckpt_dir))
    if found is None:
        raise InputError(
            f"{WHAT}: no tokenizer is inside or beside {path}; give its path with --tokenizer, or get it with: "
            f"{downloads.TOKENIZER}"
        )
    return load_tokenizer(found)
