"""umT5's encoder: prompts to the embeddings that the transformer attends to.

The network is transformers' ``UMT5EncoderModel``; this module finds out the dimensions and brings the names of
every publisher's file to transformers'. Weights are read block by block as a prompt goes through them and dropped
again, so that 11 GB of them need the memory of one block, on the card as in the computer. It does not know about
caching (``text_cache``), guidance or the transformer's text length.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

from ...checkpoints.files import Tensors, open_tensors
from ...checkpoints.kinds import EMBEDDED_TOKENIZER
from ...checkpoints.load import fill
from ...checkpoints.lookup import TextFiles
from ...checkpoints.shapes import check_names, check_shape, dimensions
from ...errors import InputError
from ...facts import downloads
from ...residency.staging import Staging
from .tokenizer import Tokenizer, load_tokenizer, tokenizer_from_sentencepiece

if TYPE_CHECKING:  # seconds to import, and not needed where every prompt is in the cache
    from transformers import UMT5Config

WHAT = "the text encoder (umT5, --text_encoder)"

_TABLES = ("shared.weight", "encoder.embed_tokens.weight")  # one table; files have it under either name
_LAST_NORM = "encoder.final_layer_norm."
_NAMES = {
    "token_embedding.weight": _TABLES[0],
    _TABLES[1]: _TABLES[0],
    "norm.weight": f"{_LAST_NORM}weight",
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


class Cards(Protocol):
    """Cards that read the weights together, each its part.

    Attributes:
        place: of this one among them, from 0.
        count: how many they are.
    """

    @property
    def place(self) -> int: ...

    @property
    def count(self) -> int: ...

    def send(self, tensor: torch.Tensor, of: int) -> None:
        """Make the tensor of every card that of card ``of``."""


class TextEncoder:
    """Prompts in, embeddings out.

    Args:
        config: the network's dimensions.
        tensors: its weights, by transformers' names.
        tokenizer: its tokenizer.
        device, dtype: where and in what it computes.
        cards: that read its weights together, and all encode the same; None: this one reads all.

    Attributes:
        model: transformers' network, whose blocks hold weights only while they run.

    Raises:
        InputError: weights are missing or of another shape.
    """

    def __init__(
        self,
        config: UMT5Config,
        tensors: Tensors,
        tokenizer: Tokenizer,
        device: torch.device,
        dtype: torch.dtype,
        cards: Cards | None = None,
    ) -> None:
        from transformers import UMT5EncoderModel

        self.tokenizer = tokenizer
        self.device, self.dtype = device, dtype
        self._tensors = tensors
        self._cards = cards
        self._staging = Staging(device)
        with torch.device("meta"):
            self.model = UMT5EncoderModel(config).to(dtype).eval()
        shapes = {name: tuple(parameter.shape) for name, parameter in self.model.state_dict().items()}
        check_names(list(shapes), tensors, WHAT, optional=frozenset(_TABLES[1:]))
        for name in shapes.keys() - set(_TABLES[1:]):
            check_shape(name, shapes[name], tensors, WHAT)
        fill(self.model.encoder.final_layer_norm, tensors.under(_LAST_NORM), WHAT, dtype=dtype, device=device)
        for index, block in enumerate(self.model.encoder.block):
            self._stream(block, tensors.under(f"encoder.block.{index}."))

    def _stream(self, block: nn.Module, tensors: Tensors) -> None:
        """Have a block's weights there while it runs."""

        def stored_as(name: str) -> torch.dtype:
            # umT5's feed-forward output overflows fp16; transformers keeps this weight in fp32 for that reason
            return torch.float32 if self.dtype == torch.float16 and name.endswith(".wo.weight") else self.dtype

        def arrive(block: nn.Module, inputs: object) -> None:
            way = {"dtype": stored_as, "device": self.device, "bring": self._staging.to_device}
            if self._cards is None:
                fill(block, tensors, WHAT, **way)
                return
            readers, place = _readers(block, self._cards.count), self._cards.place
            fill(block, tensors, WHAT, **way, skip=lambda name: readers[name] != place)
            for name, parameter in list(block.named_parameters()):
                if readers[name] != place:
                    owner, _, leaf = name.rpartition(".")
                    room = torch.empty(parameter.shape, dtype=stored_as(name), device=self.device)
                    parameter = nn.Parameter(room, requires_grad=False)
                    block.get_submodule(owner).register_parameter(leaf, parameter)
                self._cards.send(parameter.data, readers[name])

        def leave(block: nn.Module, inputs: object, output: object) -> None:
            block.to("meta")

        block.register_forward_pre_hook(arrive)
        block.register_forward_hook(leave, always_call=True)

    def encode(self, prompts: list[str]) -> list[torch.Tensor]:
        """Embeddings [n, dim] of each prompt, n <= 512 tokens with ``</s>``, in ``dtype`` on ``device``.

        Longer prompts are cut, as upstream does.
        """
        try:
            return [self.encode_ids(self.tokenizer(prompt)) for prompt in prompts]
        finally:
            self._staging.free()

    @torch.no_grad()
    def encode_ids(self, ids: list[int]) -> torch.Tensor:
        """Embeddings [n, dim] of n token ids.

        Upstream pads to 512 tokens, masks the padding and drops its rows; without padding the same
        rows come at a fraction of the work.
        """
        table = self._tensors.packed(_TABLES[0])
        rows = table.storage.unpack({name: _rows(part, ids) for name, part in table.parts.items()})
        return self.model(inputs_embeds=rows[None].to(self.device, self.dtype)).last_hidden_state[0]


def _readers(block: nn.Module, count: int) -> dict[str, int]:
    """Which of so many cards reads which parameter, so that all read about as much."""
    read, found = [0] * count, {}
    for name, parameter in sorted(block.named_parameters(), key=lambda each: (-each[1].numel(), each[0])):
        found[name] = read.index(min(read))
        read[found[name]] += parameter.numel()
    return found


def _rows(table: torch.Tensor, ids: list[int]) -> torch.Tensor:
    """``table[ids]``, which PyTorch 2.6 does not know of 8-bit floats."""
    return table.view(torch.uint8)[ids].view(table.dtype) if table.itemsize == 1 else table[ids]


def load_text_encoder(
    files: TextFiles, device: torch.device | str, dtype: torch.dtype, cards: Cards | None = None
) -> TextEncoder:
    """Open umT5's encoder and its tokenizer.

    Args:
        files: ``models_t5_umt5-xxl-enc-bf16.pth``, the same as safetensors, or a file with transformers'
            names such as ``umt5_xxl_fp16.safetensors``, also quantised; and the tokenizer. One inside the checkpoint
            wins unless the user gave another.
        device, dtype: where and in what it computes.

        cards: that read its weights together.

    Raises:
        InputError: the file is missing, damaged or another model's; no tokenizer is found, or it has
            more tokens than the model.
    """
    path = files.weights
    raw = open_tensors(path, WHAT)
    tensors = raw.renamed(_transformers_name)
    config = _config(tensors)
    tokenizer = _tokenizer(raw, files)
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"{WHAT}: the tokenizer {tokenizer.source} has {tokenizer.vocab_size} tokens, the model {path} only "
            f"{config.vocab_size}; give the tokenizer that belongs to it with --tokenizer."
        )
    return TextEncoder(config, tensors, tokenizer, torch.device(device), dtype, cards)


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


def _tokenizer(tensors: Tensors, files: TextFiles) -> Tokenizer:
    """The tokenizer that was asked for, else the one inside the checkpoint, else the one beside it."""
    if not files.given and EMBEDDED_TOKENIZER in tensors:
        model = tensors[EMBEDDED_TOKENIZER].numpy().tobytes()
        return tokenizer_from_sentencepiece(model, f"{EMBEDDED_TOKENIZER} in {files.weights}")
    if files.tokenizer is None:
        raise InputError(
            f"{WHAT}: no tokenizer is inside or beside {files.weights}; give its path with --tokenizer, or get it "
            f"with: {downloads.TOKENIZER}"
        )
    return load_tokenizer(files.tokenizer)
