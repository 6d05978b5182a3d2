"""Golden data for the text and image encoders: upstream's umT5, its tokenizer and CLIP, in fp32.

The networks are small but complete, with weights that depend on their names alone, so that a test
can make the same weights in any publisher's format. See ``tests/models/test_text_encoder.py`` and
``tests/models/test_image_encoder.py``.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from .upstream import import_upstream

CORPUS = (
    "A woman is talking to the camera in a bright room, and she smiles.",
    "The old man reads a letter; his hands are still & his voice is low.",
    "Bright colours, overexposed, static, blurred details, subtitles, worst quality!",
    "Two people walk along the river (slowly) while it rains: 12 drops, 345 steps.",
    "\u4e00\u4e2a\u5973\u4eba\u5728\u8bf4\u8bdd\uff0c\u5979\u5728\u5fae\u7b11\u3002",
    "\u8272\u8c03\u8273\u4e3d\uff0c\u8fc7\u66dd\uff0c\u9759\u6001\uff0c\u7ec6\u8282\u6a21\u7cca\u4e0d\u6e05",
)
PROMPTS = (
    "A woman is talking to the camera, and she smiles.",
    "A man is talking to the camera, and he smiles.",
    "",
    "  The old man&amp;amp;lt;reads\n\n a\tletter \u201cslowly\u201d &amp; smiles\u3000 ",
    "\u4e00\u4e2a\u5973\u4eba\u5728\u8bf4\u8bdd\uff0c\u5979\u5728\u5fae\u7b11\u3002",
    "\uff21\uff22\uff23 walk\uff01 \u00e2\u20ac\u0153mended\u00e2\u20ac\u009d text",
    "people walk along the river while it rains, " * 40,
)


def random_weights(shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Weights of a sensible scale, none of them zero or constant; a tensor depends on its name and shape alone."""
    weights = {}
    for name, shape in shapes.items():
        # RandomState's stream is frozen for ever (NEP 19), that of default_rng and torch is not
        noise = torch.from_numpy(np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)).float()
        if len(shape) < 2:
            weights[name] = ("norm" in name and name.endswith("weight")) + 0.1 * noise
        elif "embedding" in name and "patch" not in name:
            weights[name] = noise
        else:
            weights[name] = noise * noise[0].numel() ** -0.5
    return weights


def make(upstream: Path, out: Path) -> None:
    """Write ``encoders_text.safetensors`` and ``encoders_image.safetensors`` into ``out``."""
    with import_upstream(upstream), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        _make_text(out / "encoders_text.safetensors", Path(folder))
        _make_image(out / "encoders_image.safetensors")


def _make_text(path: Path, folder: Path) -> None:
    from wan.modules.t5 import T5Encoder, T5EncoderModel
    from wan.modules.tokenizers import HuggingfaceTokenizer

    spiece = train_sentencepiece(folder)
    save_tokenizer_folder(spiece, folder / "umt5")
    encoder = T5EncoderModel.__new__(T5EncoderModel)  # its __init__ builds umT5-xxl
    encoder.tokenizer = HuggingfaceTokenizer(name=str(folder / "umt5"), seq_len=512, clean="whitespace")
    model = T5Encoder(
        vocab=encoder.tokenizer.vocab_size + 5,
        dim=32,
        dim_attn=48,
        dim_ffn=40,
        num_heads=4,
        num_layers=2,
        num_buckets=32,
        shared_pos=False,
    )
    encoder.model = model.eval()
    shapes = _randomise(model)
    embeddings = encoder(list(PROMPTS), "cpu")
    ids, mask = encoder.tokenizer(list(PROMPTS), return_mask=True, add_special_tokens=True)
    tensors = {f"embeddings.{i}": embedding.contiguous() for i, embedding in enumerate(embeddings)}
    tensors |= {f"ids.{i}": row[keep > 0] for i, (row, keep) in enumerate(zip(ids, mask, strict=True))}
    tensors["spiece_model"] = torch.frombuffer(bytearray(spiece), dtype=torch.uint8)
    tensors["tokenizer_json"] = torch.frombuffer(
        bytearray((folder / "umt5" / "tokenizer.json").read_bytes()), dtype=torch.uint8
    )
    cleaned = [encoder.tokenizer._clean(prompt) for prompt in PROMPTS]
    save_file(tensors, path, {"json": json.dumps({"shapes": shapes, "prompts": PROMPTS, "clean": cleaned})})


def _make_image(path: Path) -> None:
    from wan.modules.clip import CLIPModel, clip_xlm_roberta_vit_h_14

    clip = CLIPModel.__new__(CLIPModel)  # its __init__ builds ViT-H/14
    clip.dtype = torch.float32
    small_text = {"vocab_size": 8, "max_text_len": 8, "text_dim": 8, "text_heads": 1, "text_layers": 1}
    small_vision = {"image_size": 28, "patch_size": 7, "vision_dim": 160, "vision_mlp_ratio": 1, "vision_layers": 3}
    clip.model, clip.transforms = clip_xlm_roberta_vit_h_14(
        return_transforms=True, embed_dim=8, vision_heads=2, **small_vision, **small_text
    )
    shapes = _randomise(clip.model.eval())
    image = torch.from_numpy(np.random.RandomState(0).uniform(-1, 1, (3, 40, 56))).float()
    features = clip.visual([image[:, None].clone()])[0]  # upstream changes its input
    save_file({"image": image, "features": features.contiguous()}, path, {"json": json.dumps({"shapes": shapes})})


def train_sentencepiece(folder: Path) -> bytes:
    """A small Unigram model of umT5's kind: <pad>, </s>, <unk>, bytes for what it does not know."""
    import sentencepiece

    # NFKC's own table is 240 KB; these rules are of its kind
    rules = {0x3000: " ", 0x09: " ", 0xFF0C: ",", 0xFF01: "!", **{0xFF21 + i: chr(0x41 + i) for i in range(26)}}
    table = Path("rules.tsv")  # the model keeps this path, so it is a relative one
    (folder / table).write_text("".join(f"{key:X}\t{ord(value):X}\n" for key, value in rules.items()))
    model = io.BytesIO()
    with contextlib.chdir(folder):
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS),
            model_writer=model,
            model_type="unigram",
            vocab_size=420,
            hard_vocab_limit=False,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            byte_fallback=True,
            normalization_rule_tsv=str(table),
            num_threads=1,
            minloglevel=2,
        )
    return model.getvalue()


def save_tokenizer_folder(spiece_model: bytes, folder: Path) -> None:
    """Save the tokenizer as transformers lays google/umt5-xxl out: tokenizer.json, spiece.model and settings."""
    from transformers import T5TokenizerFast

    folder.mkdir()
    (folder / "spiece.model").write_bytes(spiece_model)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "T5Tokenizer", "extra_ids": 0}))
    T5TokenizerFast.from_pretrained(folder, extra_ids=0).save_pretrained(folder)


def _randomise(model: torch.nn.Module) -> dict[str, list[int]]:
    """Give the model its random weights; return the shapes."""
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    model.load_state_dict(random_weights(shapes))
    return shapes
