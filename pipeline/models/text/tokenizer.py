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

from ...errors import InputError
from ...facts import downloads

MAX_TOKENS = 512
WHAT = "the tokenizer (--tokenizer)"
_FILES = ("tokenizer.json", "spiece.model")


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


def find_tokenizer(explicit: Path | None, checkpoint: Path, ckpt_dir: Path | None) -> Path | None:
    """The tokenizer file to use, or None if there is none outside the checkpoint.

    Args:
        explicit: what the user gave: a file, or a folder that holds one; it wins.
        checkpoint: the text encoder's file; searched are the folders ``google/umt5-xxl`` and
            ``umt5-xxl`` beside it, then its own folder.
        ckpt_dir: the base model's folder, where upstream keeps ``google/umt5-xxl``.

    Raises:
        InputError: ``explicit`` is not there or holds no tokenizer.
    """
    if explicit is not None:
        return _explicit_file(explicit)
    beside = checkpoint.parent
    folders = [beside / "google" / "umt5-xxl", beside / "umt5-xxl", beside]
    if ckpt_dir is not None:
        folders.insert(0, ckpt_dir / "google" / "umt5-xxl")
    candidates = (folder / name for folder in folders for name in _FILES)
    return next((path for path in candidates if path.is_file()), None)


def _explicit_file(path: Path) -> Path:
    if not path.exists():
        raise InputError(f"{WHAT}: {path} does not exist. Check the path.")
    if path.is_file():
        return path
    for name in _FILES:
        if (path / name).is_file():
            return path / name
    raise InputError(
        f"{WHAT}: the folder {path} holds neither {' nor '.join(_FILES)}; get them with: {downloads.TOKENIZER}"
    )


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
        raise InputError(f"{WHAT}: {path} is not a tokenizer.json ({error}). Download it again.") from error
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
