"""The tokenizer of umT5: from a prompt as it was typed to token ids.

A tokenizer is read as the file it is, a ``tokenizer.json`` (by ``tokenizers``) or a ``spiece.model``
(by ``sentencepiece``), not through transformers, whose releases rebuild T5's normalisation each in
their own way. Nothing is ever downloaded. Does not know the model that the ids are for.
"""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import tokenizers

from ...checkpoints.lookup import TOKENIZER as WHAT
from ...errors import InputError, in_short

MAX_TOKENS = 512


class Tokenizer:
    """Turns a prompt into ids that end with ``</s>``.

    Args:
        encode: cleaned text to ids, with ``</s>`` at the end, cut to ``MAX_TOKENS``.
        vocab_size: every id is smaller.
        source: where it comes from, for messages.
    """

    def __init__(self, encode: Callable[[str], list[int]], vocab_size: int, source: str) -> None:
        self._encode = encode
        self.vocab_size = vocab_size
        self.source = source

    def __call__(self, prompt: str) -> list[int]:
        """Ids of the cleaned prompt, at least 1 and at most ``MAX_TOKENS``; the last one is ``</s>``."""
        return self._encode(clean_prompt(prompt))


def clean_prompt(prompt: str) -> str:
    """The text that upstream tokenizes: Unicode repaired, HTML entities resolved, white space collapsed.

    Without the optional package ftfy the Unicode repair is left out (it straightens curly quotes and
    undoes wrong decodings).
    """
    try:
        import ftfy
    except ImportError:
        pass
    else:
        prompt = ftfy.fix_text(prompt)
    return " ".join(html.unescape(html.unescape(prompt)).split())


def load_tokenizer(path: Path) -> Tokenizer:
    """Read a tokenizer file; what does not end in ``.json`` is taken for a sentencepiece model.

    Raises:
        InputError: the file is not a T5 tokenizer.
    """
    if path.suffix != ".json":
        try:
            model = path.read_bytes()
        except OSError as error:
            raise InputError(f"{WHAT}: {path} cannot be read ({error.strerror}). Check the file.") from error
        return tokenizer_from_sentencepiece(model, str(path))
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(f"{WHAT}: {path} is not a tokenizer.json ({in_short(error)}). Download it again.") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    end = tokenizer.token_to_id("</s>")
    if tokenizer.encode("").ids != [end]:
        raise InputError(f"{WHAT}: {path} does not end a text with </s> as T5's does; give google/umt5-xxl of Wan2.1.")
    return Tokenizer(lambda text: tokenizer.encode(text).ids, tokenizer.get_vocab_size(), str(path))


def tokenizer_from_sentencepiece(model: bytes, source: str) -> Tokenizer:
    """A tokenizer from the bytes of a ``spiece.model``.

    Raises:
        InputError: the bytes are no sentencepiece model, or sentencepiece is not installed.
    """
    try:
        import sentencepiece
    except ImportError as error:
        raise InputError(
            f"{WHAT}: {source} is a sentencepiece model and the package sentencepiece is not installed; "
            "install it, or give the tokenizer.json of google/umt5-xxl with --tokenizer."
        ) from error
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(model)
    except RuntimeError as error:
        raise InputError(f"{WHAT}: {source} is not a sentencepiece model. Download it again.") from error
    end = processor.eos_id()
    if end < 0:
        raise InputError(f"{WHAT}: {source} has no token </s>, which T5's has; give google/umt5-xxl of Wan2.1.")
    return Tokenizer(
        lambda text: [*processor.EncodeAsIds(text)[: MAX_TOKENS - 1], end], processor.GetPieceSize(), source
    )
