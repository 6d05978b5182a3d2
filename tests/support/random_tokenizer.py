"""A small umT5-style tokenizer for the random checkpoint: SentencePiece's unigram model with byte fallback.

Trained in a moment on the sentences in the .txt file beside this one, always with the same result, and written as the
published folder is: ``spiece.model`` beside Hugging Face's ``tokenizer.json``. Any text can be
encoded, since what has no piece falls back to bytes. Does not know the text encoder.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"  # ids 0, 1, 2
PIECES = 512  # of which 256 are bytes
NORMALISATION = "nfkc"

SENTENCES = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()


def write_tokenizer(folder: Path, sentences: list[str] = SENTENCES, pieces: int = PIECES) -> int:
    """Write the tokenizer's files into ``folder`` and return the number of pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    model = train_sentencepiece(sentences, pieces)
    (folder / "spiece.model").write_bytes(model)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    hugging_face_tokenizer(processor).save(str(folder / "tokenizer.json"))
    special = {"eos_token": EOS, "pad_token": PAD, "unk_token": UNK}
    config = {**special, "tokenizer_class": "T5Tokenizer", "extra_ids": 0, "additional_special_tokens": []}
    write_json(folder / "tokenizer_config.json", {**config, "model_max_length": 512})
    write_json(folder / "special_tokens_map.json", special)
    return processor.vocab_size()


def train_sentencepiece(sentences: list[str] = SENTENCES, pieces: int = PIECES) -> bytes:
    """The serialized SentencePiece model (the content of ``spiece.model``)."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        model_type="unigram",
        vocab_size=pieces,
        hard_vocab_limit=False,
        character_coverage=1.0,
        byte_fallback=True,
        normalization_rule_name=NORMALISATION,
        num_threads=1,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece=PAD,
        eos_piece=EOS,
        unk_piece=UNK,
        minloglevel=2,
    )
    return model.getvalue()


def hugging_face_tokenizer(processor: sentencepiece.SentencePieceProcessor) -> Tokenizer:
    """The same pieces as a ``tokenizers`` pipeline that gives the same ids and appends ``</s>``."""
    pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(processor.vocab_size())]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=processor.unk_id(), byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Strip(), normalizers.Replace("  ", " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[(EOS, processor.eos_id())]
    )
    tokenizer.add_special_tokens([PAD, EOS, UNK])
    return tokenizer


def write_json(path: Path, content: dict) -> None:
    """Readable JSON, always the same bytes for the same content."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
