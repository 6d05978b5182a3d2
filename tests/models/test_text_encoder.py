"""The text encoder and its tokenizer, against upstream's own and over every kind of file."""

import json
import sys

import pytest
import tokenizers
import torch
from infinitetalk.pipeline.checkpoints.lookup import find_text_files, find_tokenizer
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.facts import downloads
from infinitetalk.pipeline.models.text.encoder import load_text_encoder
from infinitetalk.pipeline.models.text.tokenizer import clean_prompt, load_tokenizer
from infinitetalk.tests.golden.encoders import random_weights
from infinitetalk.tests.support.places import DATA
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import AutoTokenizer

GOLDEN = DATA / "encoders_text.safetensors"
KNOWN = (0, 1, 2, 4, 6)  # prompts without a character that the small vocabulary lacks


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return tensors, json.loads(file.metadata()["json"])


@pytest.fixture(scope="module")
def weights(golden):
    return random_weights(golden[1]["shapes"])


@pytest.fixture
def folder(tmp_path, golden):
    """A checkpoint folder as upstream's, without the weights."""
    tokenizer = tmp_path / "google" / "umt5-xxl"
    tokenizer.mkdir(parents=True)
    for name in ("tokenizer.json", "spiece.model"):
        (tokenizer / name).write_bytes(golden[0][name.replace(".", "_")].numpy().tobytes())
    return tmp_path


def transformers_names(weights):
    """umT5's weights under transformers' names, written out apart from the engine's own table."""
    result = {
        "shared.weight": weights["token_embedding.weight"],
        "encoder.final_layer_norm.weight": weights["norm.weight"],
    }
    for i in range(2):
        old, new = f"blocks.{i}", f"encoder.block.{i}.layer"
        for x in "qkvo":
            result[f"{new}.0.SelfAttention.{x}.weight"] = weights[f"{old}.attn.{x}.weight"]
        position = weights[f"{old}.pos_embedding.embedding.weight"]
        result[f"{new}.0.SelfAttention.relative_attention_bias.weight"] = position
        result[f"{new}.0.layer_norm.weight"] = weights[f"{old}.norm1.weight"]
        result[f"{new}.1.layer_norm.weight"] = weights[f"{old}.norm2.weight"]
        result[f"{new}.1.DenseReluDense.wi_0.weight"] = weights[f"{old}.ffn.gate.0.weight"]
        result[f"{new}.1.DenseReluDense.wi_1.weight"] = weights[f"{old}.ffn.fc1.weight"]
        result[f"{new}.1.DenseReluDense.wo.weight"] = weights[f"{old}.ffn.fc2.weight"]
    return result


def save(tensors, path):
    if path.suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file(tensors, path)
    return path


def load(path, tokenizer=None, ckpt_dir=None, dtype=torch.float32):
    return load_text_encoder(find_text_files(path, tokenizer, ckpt_dir), "cpu", dtype)


def assert_same(used, found, expected, prompts):
    """The same weights, bit for bit; embeddings may differ in the last one, as mapped memory is aligned otherwise."""
    torch.testing.assert_close(used(found), used(expected), rtol=0, atol=0)
    torch.testing.assert_close(found.encode(prompts), expected.encode(prompts), rtol=0, atol=5e-6)


def refusal(path, *words, **options):
    with pytest.raises(InputError) as error:
        load(path, **options)
    for word in (path.name, *words):
        assert word in str(error.value)


def test_prompts_are_embedded_as_upstream_does(golden, weights, folder):
    tensors, texts = golden
    encoder = load(save(weights, folder / "t5.pth"))
    assert len(texts["prompts"]) == 7
    for i, embedding in enumerate(encoder.encode(texts["prompts"])):
        expected = tensors[f"embeddings.{i}"]
        assert embedding.shape == expected.shape
        assert (embedding - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_longest_and_shortest_prompt(golden, weights, folder):
    encoder = load(save(weights, folder / "t5.pth"))
    long, empty = encoder.encode([golden[1]["prompts"][6], ""])
    assert (len(long), len(empty)) == (512, 1)


def test_every_publishers_file_gives_the_same(golden, weights, folder, text_weights):
    renamed = transformers_names(weights)
    prompts = [golden[1]["prompts"][i] for i in KNOWN]
    alias = {{"shared.weight": "encoder.embed_tokens.weight"}.get(k, k): v for k, v in renamed.items()}
    files = [
        save(weights, folder / "official.safetensors"),
        save({**renamed, "spiece_model": golden[0]["spiece_model"]}, folder / "comfy.safetensors"),
        save(alias, folder / "alias.safetensors"),
    ]
    expected = load(save(weights, folder / "official.pth"))
    for path in files:
        assert_same(text_weights, load(path, ckpt_dir=folder), expected, prompts)


def test_fp8_without_scales_is_read(golden, weights, folder, text_weights):
    fp8 = {k: v.to(torch.float8_e4m3fn) for k, v in weights.items()}
    upcast = {k: v.float() for k, v in fp8.items()}
    prompts = golden[1]["prompts"]
    found = load(save(fp8, folder / "fp8.safetensors"))
    assert_same(text_weights, found, load(save(upcast, folder / "upcast.safetensors")), prompts)
    assert not torch.equal(found.encode(prompts[:1])[0], load(save(weights, folder / "t5.pth")).encode(prompts[:1])[0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(golden, weights, folder, text_weights, dtype):
    tensors, texts = golden
    encoder = load(save(weights, folder / "t5.pth"), dtype=dtype)
    found = encoder.encode(texts["prompts"][:1])[0]
    assert found.dtype == dtype
    expected = tensors["embeddings.0"]
    assert 0 < (found.float() - expected).abs().max() < 0.05 * expected.abs().max()
    wo = text_weights(encoder)["0.layer.1.DenseReluDense.wo.weight"]
    assert wo.dtype == (torch.float32 if dtype == torch.float16 else dtype)


def test_a_word_changes_the_embedding(golden, weights, folder):
    she, he = load(save(weights, folder / "t5.pth")).encode(golden[1]["prompts"][:2])
    assert she[: len(he)].sub(he).abs().max() > 0.1


def test_blocks_are_there_only_while_they_run(weights, folder):
    encoder = load(save(weights, folder / "t5.pth"))
    blocks, at_once = encoder.model.encoder.block, []

    def look(*_):
        at_once.append([not parameter.is_meta for block in blocks for parameter in block.parameters()].count(True))

    for block in blocks:
        block.layer[1].register_forward_hook(look)
    encoder.encode_ids([5, 1])
    one = len(list(blocks[0].parameters()))
    assert at_once == [one, one]
    assert all(parameter.is_meta for parameter in [*blocks.parameters(), *encoder.model.shared.parameters()])


def test_a_failing_block_leaves_nothing_behind(weights, folder):
    encoder = load(save(weights, folder / "t5.pth"))
    expected = encoder.encode_ids([5, 1])

    def fail(*_):
        raise RuntimeError("stop")

    hook = encoder.model.encoder.block[1].layer[1].register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="stop"):
        encoder.encode_ids([5, 1])
    hook.remove()
    assert all(parameter.is_meta for parameter in encoder.model.encoder.block.parameters())
    assert torch.equal(encoder.encode_ids([5, 1]), expected)


def test_wrong_files_are_refused(weights, folder):
    refusal(folder / "absent.pth", "does not exist")
    refusal(save({"visual.cls_embedding": torch.ones(1)}, folder / "clip.pth"), "another kind", "visual.cls_embedding")
    lacking = {k: v for k, v in weights.items() if k != "blocks.1.ffn.fc2.weight"}
    refusal(save(lacking, folder / "cut.pth"), "lacks encoder.block.1.layer.1.DenseReluDense.wo.weight")
    uneven = {**weights, "blocks.0.attn.q.weight": torch.ones(47, 32)}
    refusal(save(uneven, folder / "uneven.pth"), "width 47", "4 heads")


def test_a_missing_tokenizer_is_told_how_to_get(weights, tmp_path):
    path = save(weights, tmp_path / "t5.pth")
    command = downloads.TOKENIZER
    refusal(path, "--tokenizer", command)


def test_a_tokenizer_of_a_larger_model_is_refused(weights, folder):
    small = {**weights, "token_embedding.weight": weights["token_embedding.weight"][:50].clone()}
    refusal(save(small, folder / "small.pth"), "tokens", "only 50")


def test_ids_are_upstreams(golden, folder):
    tensors, texts = golden
    from_json = load_tokenizer(folder / "google" / "umt5-xxl" / "tokenizer.json")
    from_spiece = load_tokenizer(folder / "google" / "umt5-xxl" / "spiece.model")
    for i, prompt in enumerate(texts["prompts"]):
        expected = tensors[f"ids.{i}"].tolist()
        assert from_json(prompt) == expected
        assert (from_spiece(prompt) == expected) == (i in KNOWN)
    assert from_json.vocab_size == from_spiece.vocab_size


def test_sentencepiece_spells_unknown_characters_in_bytes(folder):
    ids = load_tokenizer(folder / "google" / "umt5-xxl" / "spiece.model")("\u00e9")
    assert 2 not in ids  # <unk>
    assert len(ids) == 4  # the word's beginning, two bytes, </s>


def test_ids_are_those_of_transformers(golden, folder):
    reference = AutoTokenizer.from_pretrained(folder / "google" / "umt5-xxl", local_files_only=True)
    ours = load_tokenizer(folder / "google" / "umt5-xxl" / "tokenizer.json")
    for prompt in golden[1]["prompts"]:
        assert ours(prompt) == reference(clean_prompt(prompt), truncation=True, max_length=512).input_ids


def test_prompts_are_cleaned_as_upstream_does(golden):
    assert [clean_prompt(prompt) for prompt in golden[1]["prompts"]] == golden[1]["clean"]
    assert clean_prompt("a &amp;amp;lt; b") == "a < b"


def test_cleaning_without_ftfy(monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    assert clean_prompt(" a\u201cb\u201d &amp;lt;\n c\u3000") == "a\u201cb\u201d < c"


def test_the_tokenizer_in_the_file_is_preferred_to_the_one_beside_it(golden, weights, folder):
    comfy = {**transformers_names(weights), "spiece_model": golden[0]["spiece_model"]}
    path = save(comfy, folder / "comfy.safetensors")
    assert "spiece_model in" in load(path, ckpt_dir=folder).tokenizer.source
    explicit = folder / "google" / "umt5-xxl"
    assert load(path, tokenizer=explicit).tokenizer.source == str(explicit / "tokenizer.json")


def test_where_the_tokenizer_is_looked_for(tmp_path):
    checkpoint = tmp_path / "models" / "t5.pth"
    base = tmp_path / "base"
    places = [
        checkpoint.parent / "spiece.model",
        checkpoint.parent / "tokenizer.json",
        checkpoint.parent / "umt5-xxl" / "tokenizer.json",
        checkpoint.parent / "google" / "umt5-xxl" / "spiece.model",
        base / "google" / "umt5-xxl" / "tokenizer.json",
    ]
    assert find_tokenizer(None, checkpoint, base) is None
    for place in places:  # each is preferred to those before it
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        assert find_tokenizer(None, checkpoint, base) == place
    assert find_tokenizer(None, checkpoint, None) == places[3]
    explicit = tmp_path / "mine.model"
    explicit.touch()
    assert find_tokenizer(explicit, checkpoint, base) == explicit
    assert find_tokenizer(places[3].parent, checkpoint, base) == places[3]


@pytest.mark.parametrize(("made", "words"), [("absent", "does not exist"), ("folder", "holds neither")])
def test_a_wrong_tokenizer_path_is_refused(tmp_path, made, words):
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=f"--tokenizer.*{made}.*{words}"):
        find_tokenizer(tmp_path / made, tmp_path / "t5.pth", None)


def test_wrong_tokenizer_files_are_refused(tmp_path):
    def refused(path, words):
        with pytest.raises(InputError, match=words) as error:
            load_tokenizer(path)
        assert str(path) in str(error.value)

    broken = tmp_path / "tokenizer.json"
    broken.write_text("{")
    refused(broken, "is not a tokenizer.json")
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "</s>": 1})).save(str(broken))
    refused(broken, "does not end a text with </s>")
    spiece = tmp_path / "spiece.model"
    spiece.write_bytes(b"no model")
    refused(spiece, "is not a sentencepiece model")


def test_sentencepiece_is_asked_for_where_it_is_needed(monkeypatch, folder):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    assert load_tokenizer(folder / "google" / "umt5-xxl" / "tokenizer.json")("a")
    with pytest.raises(InputError, match="sentencepiece is not installed"):
        load_tokenizer(folder / "google" / "umt5-xxl" / "spiece.model")
