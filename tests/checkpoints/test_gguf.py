"""GGUF files against the gguf package: every block format bit for bit, headers, real layouts, damaged files."""

import random
import struct

import gguf
import numpy as np
import pytest
import torch
from infinitetalk.pipeline.checkpoints.files import open_tensors
from infinitetalk.pipeline.checkpoints.lookup import find_text_files
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.facts import storages
from infinitetalk.pipeline.models.text.encoder import load_text_encoder
from infinitetalk.pipeline.models.transformer.files import open_transformer, transformer_config
from infinitetalk.pipeline.quantisation import gguf as formats
from infinitetalk.pipeline.quantisation.gguf import STORAGES
from infinitetalk.pipeline.quantisation.storage import SideBranch
from infinitetalk.tests.support import random_checkpoint
from infinitetalk.tests.support.gguf_files import quantise, stored_as, t5_names, write_gguf
from infinitetalk.tests.support.random_checkpoint import T5_FILE, TOKENIZER_DIR, Sizes

# rows of the audio layers' matrices are multiples of 256 in the published file, too
WIDE = Sizes(dim=256, heads=2, layers=1, ffn=512, audio_hidden=128, audio_token_dim=256, audio_intermediate=256)
# relative errors on normally distributed numbers
ERRORS = {"Q8_0": 0.006, "Q6_K": 0.02, "Q5_1": 0.04, "Q5_K": 0.04, "Q5_0": 0.045, "Q4_K": 0.08, "Q4_1": 0.08}
ERRORS |= {"IQ4_NL": 0.08, "IQ4_XS": 0.08, "Q4_0": 0.09, "Q3_K": 0.15, "Q2_K": 0.3}
HALVES = {"Q4_1": (0, 2), "Q5_1": (0, 2), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q2_K": (80, 82), "Q3_K": (108,)}
HALVES |= {"Q6_K": (208,)}  # where blocks keep their fp16 numbers; the others at 0
WHAT = "the weights (--flag)"


def kind(name):
    return gguf.GGMLQuantizationType[name]


def random_rows(name, rows=37, columns=768, seed=0):
    """Blocks of random bits whose fp16 numbers are finite, uint8 [rows, row bytes]."""
    generator = np.random.default_rng(seed)
    weights, size = gguf.GGML_QUANT_SIZES[kind(name)]
    blocks = generator.integers(0, 256, (rows * columns // weights, size), dtype=np.uint8)
    for at in HALVES.get(name, (0,)):
        numbers = generator.standard_normal((len(blocks), 1)) * 10.0 ** generator.integers(-7, 4, (len(blocks), 1))
        blocks[:, at : at + 2] = numbers.astype(np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


def normal(rows, columns, seed=0):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def expected(rows, name):
    return torch.from_numpy(gguf.quants.dequantize(rows, kind(name)))


def same_bits(one, other):
    """Equal, -0 and 0 told apart."""
    return one.dtype == other.dtype and torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def test_the_formats_are_those_of_ggml():
    for name, storage in STORAGES.items():
        facts = storage.facts
        assert (facts.blocks.weights, facts.blocks.size) == gguf.GGML_QUANT_SIZES[kind(name)]
        assert facts.blocks.number == kind(name) and facts.quantised
        assert isinstance(storage.fuse, SideBranch)


@pytest.mark.parametrize("name", STORAGES)
@pytest.mark.parametrize("chunk", [1 << 19, 5000])  # the second ends with fewer rows than the others
def test_unpacking_is_ggmls_to_the_last_bit(name, chunk, monkeypatch):
    monkeypatch.setattr(formats, "CHUNK_ON_CPU", chunk)
    unpack = STORAGES[name].unpack
    for rows in (random_rows(name), quantise(normal(37, 768), name)):
        whole = unpack({"weight": torch.from_numpy(rows)})
        assert whole.shape == (37, 768) and same_bits(whole, expected(rows, name))
        for dtype in (torch.bfloat16, torch.float16):
            assert same_bits(unpack({"weight": torch.from_numpy(rows)}, dtype), whole.to(dtype))


@pytest.mark.parametrize("name", STORAGES)
def test_what_a_format_can_hold(name):
    whole = normal(64, 512) * torch.logspace(-3, 2, 64)[:, None]
    got = STORAGES[name].unpack({"weight": torch.from_numpy(quantise(whole, name))})
    error = ((got - whole).norm(dim=1) / whole.norm(dim=1)).mean().item()
    assert 0.75 * ERRORS[name] < error < ERRORS[name]
    zeros = torch.from_numpy(quantise(torch.zeros(2, 256), name))
    assert not STORAGES[name].unpack({"weight": zeros}).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a card")
@pytest.mark.parametrize("name", STORAGES)
def test_unpacking_on_a_card_is_the_same(name):
    rows = torch.from_numpy(random_rows(name))
    unpack = STORAGES[name].unpack
    for dtype in (torch.float32, torch.bfloat16):
        assert same_bits(unpack({"weight": rows.cuda()}, dtype).cpu(), unpack({"weight": rows}, dtype))


# files


@pytest.fixture(scope="module")
def official():
    """All of a small transformer's weights under their names, float32."""
    return random_checkpoint.transformer_weights(WIDE) | random_checkpoint.infinitetalk_weights(WIDE)


@pytest.fixture
def write(tmp_path):
    def call(weights, kind, name="model.gguf", **options):
        write_gguf(tmp_path / name, weights, kind, **options)
        return tmp_path / name

    return call


@pytest.fixture
def package(tmp_path):
    """Writes a file with the gguf package alone: tensors by name, float32 or (bytes, type)."""

    def call(tensors, prepare=lambda writer: None, architecture="wan", **options):
        writer = gguf.GGUFWriter(tmp_path / "package.gguf", architecture, **options)
        prepare(writer)
        for name, tensor in tensors.items():
            data, stored = tensor if isinstance(tensor, tuple) else (tensor.numpy(), "F32")
            writer.add_tensor(name, data, raw_dtype=kind(stored))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return tmp_path / "package.gguf"

    return call


def test_a_base_and_audio_file(write, official):
    audio_names = random_checkpoint.infinitetalk_weights(WIDE).keys()
    base = {name: tensor for name, tensor in official.items() if name not in audio_names}
    audio = {name: official[name] for name in audio_names}
    tensors = open_transformer(write(base, "Q4_K_M", prefix="model.diffusion_model."), write(audio, "Q8_0", "audio"))
    assert {name: tensors.shape(name) for name in tensors} == {name: tuple(t.shape) for name, t in official.items()}
    assert tensors.numel() == sum(tensor.numel() for tensor in official.values())
    config = transformer_config(tensors)
    assert (config.dim, config.ffn_dim, config.num_layers, config.in_channels) == (256, 512, 1, 36)
    kept = {
        "patch_embedding.weight": storages.FP32,
        "patch_embedding.bias": storages.FP32,
        "blocks.0.modulation": storages.FP32,
        "head.modulation": storages.FP32,
        "blocks.0.self_attn.norm_q.weight": storages.FP32,
        "text_embedding.0.weight": storages.FP16,
        "time_projection.1.weight": storages.FP16,
        "img_emb.proj.1.weight": storages.FP16,
        "head.head.weight": storages.FP16,
        "blocks.0.self_attn.q.weight": STORAGES["Q4_K"].facts,
        "blocks.0.cross_attn.k_img.weight": STORAGES["Q4_K"].facts,
        "blocks.0.cross_attn.v.weight": STORAGES["Q6_K"].facts,
        "blocks.0.ffn.0.weight": STORAGES["Q4_K"].facts,
        "blocks.0.ffn.2.weight": STORAGES["Q6_K"].facts,
        "blocks.0.audio_cross_attn.kv_linear.weight": STORAGES["Q8_0"].facts,
        "audio_proj.proj1.weight": STORAGES["Q8_0"].facts,
        "audio_proj.norm.weight": storages.FP32,
    }
    assert {name: tensors.storage(name) for name in kept} == kept
    for name, whole in official.items():
        storage, tensor = tensors.storage(name), tensors[name]
        if storage.quantised:
            bound = ERRORS[storage.name.removeprefix("GGUF ")] * 1.1
            assert tensor.dtype == torch.float32 and (tensor - whole).norm() < bound * whole.norm()
        else:
            assert torch.equal(tensor, whole.to(tensor.dtype))


@pytest.mark.parametrize("name", [*STORAGES, "F32", "F16", "BF16"])
def test_every_tensor_as_the_gguf_package_reads_it(write, official, name):
    path = write(official, name)
    tensors, reader = open_tensors(path, WHAT), gguf.GGUFReader(path)
    assert list(tensors) == [tensor.name for tensor in reader.tensors]
    assert tensors.metadata["general.architecture"] == "wan"
    for tensor in reader.tensors:
        whole = expected(np.array(tensor.data), tensor.tensor_type.name).float().view(tensors.shape(tensor.name))
        assert torch.equal(tensors[tensor.name].float(), whole)
        stored = tensor.tensor_type.name
        assert stored == stored_as(tensor.name, tensors.shape(tensor.name), name)
        if stored in STORAGES:
            packed = tensors.packed(tensor.name)
            assert packed.storage is STORAGES[stored] and packed.shape == tuple(tensor.shape[::-1])
            assert packed.parts.keys() == {"weight"} and tensors.dtype(tensor.name) == "uint8"
            assert np.array_equal(packed.parts["weight"].numpy(), tensor.data)
            assert torch.equal(packed.unpacked(), whole)
        else:
            assert tensors.packed(tensor.name).storage.facts is storages.FLOATS[tensors.dtype(tensor.name)]


def test_narrow_matrices_are_kept_in_floats_by_the_converter(write):
    weights = {"blocks.0.a.weight": torch.ones(16, 128), "blocks.0.b.weight": torch.ones(16, 512)}
    tensors = open_tensors(write(weights, "Q4_K"), WHAT)
    assert tensors.storage("blocks.0.a.weight") is storages.FP16
    assert tensors.storage("blocks.0.b.weight") is STORAGES["Q4_K"].facts


def test_nothing_is_copied_into_memory(write):
    path = write({"blocks.0.a.weight": normal(64, 512), "blocks.0.a.bias": torch.ones(64)}, "Q5_K")
    tensors = open_tensors(path, WHAT)
    where = {tensors.packed("blocks.0.a.weight").parts["weight"].data_ptr() for _ in range(2)}
    assert len(where) == 1 and tensors["blocks.0.a.bias"].data_ptr() == tensors["blocks.0.a.bias"].data_ptr()
    before = path.read_bytes()
    tensors["blocks.0.a.bias"].fill_(2.0)
    assert path.read_bytes() == before


@pytest.mark.parametrize("values", [gguf.GGUFValueType.INT32, gguf.GGUFValueType.INT64])
def test_the_shape_that_a_converter_kept_in_the_header(package, values):
    whole = normal(45, 256)
    q8_0, q4_k = quantise(whole, "Q8_0"), quantise(whole, "Q4_K")
    shapes = {"conv.weight": (320, 4, 3, 3), "plain.weight": (5, 9, 256), "matrix.weight": (15, 768)}

    def prepare(writer):
        for name, shape in shapes.items():
            key = f"comfy.gguf.orig_shape.{name}"
            writer.add_key_value(key, list(shape), gguf.GGUFValueType.ARRAY, sub_type=values)

    stored = {"conv.weight": (q8_0, "Q8_0"), "plain.weight": whole, "matrix.weight": (q4_k, "Q4_K")}
    tensors = open_tensors(package(stored, prepare), WHAT)
    assert {name: tensors.shape(name) for name in tensors} == shapes
    assert tensors.storage("conv.weight") is storages.FP32
    assert torch.equal(tensors["conv.weight"], expected(q8_0, "Q8_0").view(320, 4, 3, 3))
    assert torch.equal(tensors["plain.weight"], whole.view(5, 9, 256))
    assert torch.equal(tensors.packed("matrix.weight").unpacked(), expected(q4_k, "Q4_K").view(15, 768))


def test_a_quantised_tensor_that_is_no_matrix(package):
    rows = quantise(normal(1, 512), "Q8_0")
    tensors = open_tensors(package({"a.bias": (rows[0], "Q8_0")}), WHAT)
    assert tensors["a.bias"].shape == (512,) and tensors.storage("a.bias") is storages.FP32
    assert torch.equal(tensors["a.bias"], expected(rows, "Q8_0")[0])


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_another_alignment(package, alignment):
    weights = {"a.weight": normal(3, 5), "b.weight": normal(7, 32)}
    tensors = open_tensors(package(weights, lambda writer: writer.add_custom_alignment(alignment)), WHAT)
    assert all(torch.equal(tensors[name], tensor) for name, tensor in weights.items())


def test_a_count_that_makes_it_look_like_safetensors(write):
    weights = {f"blocks.{n}.bias": torch.full((8,), float(n)) for n in range(ord("{") + 256)}
    path = write(weights, "Q8_0")
    assert path.read_bytes()[8:9] == b"{"
    tensors = open_tensors(path, WHAT)
    assert len(tensors) == len(weights) and torch.equal(tensors["blocks.300.bias"], weights["blocks.300.bias"])


def test_a_text_encoder_of_llama_cpp(weights, write):
    own = torch.load(weights.ckpt_dir / T5_FILE, weights_only=True)
    own = {name: tensor.float() for name, tensor in own.items()}
    path = write(t5_names(own), "Q8_0", architecture="t5encoder")
    tokenizer = weights.ckpt_dir / TOKENIZER_DIR
    outputs = [
        load_text_encoder(find_text_files(file, tokenizer, None), "cpu", torch.float32).encode(["a cat is talking"])[0]
        for file in (weights.ckpt_dir / T5_FILE, path)
    ]
    assert 0 < (outputs[0] - outputs[1]).norm() < 0.02 * outputs[0].norm()


def test_long_lists_of_tokens_are_passed_over(package):
    def prepare(writer):
        writer.add_token_list([f"token {n}" for n in range(1000)])
        writer.add_token_scores([float(n) for n in range(1000)])

    path = package({"token_embd.weight": normal(4, 32)}, prepare, "t5encoder")
    tensors = open_tensors(path, WHAT)
    assert list(tensors) == ["shared.weight"] and torch.equal(tensors["shared.weight"], normal(4, 32))
    assert set(tensors.metadata) == {"general.architecture"}


# wrong files


def sentence(path):
    with pytest.raises(InputError) as caught:
        open_tensors(path, WHAT)
    text = str(caught.value)
    assert text.startswith(f"{WHAT}: {path} ") and "\n" not in text
    return text


@pytest.fixture
def small(write):
    weights = {
        "blocks.0.a.weight": normal(8, 256),
        "blocks.0.a.bias": torch.ones(8),
        "x.modulation": torch.ones(1, 6, 8),
    }
    return write(weights, "Q4_K")


def changed(path, at, data):
    whole = path.read_bytes()
    path.write_bytes(whole[:at] + data + whole[at + len(data) :])


def test_a_file_cut_off_anywhere(small):
    whole = small.read_bytes()
    for length in (4, 8, 12, 24, *range(25, len(whole) - 1, 7), len(whole) - 1):
        small.write_bytes(whole[:length])
        assert "is a damaged or incomplete GGUF file" in sentence(small)


def test_random_damage_never_ends_in_anything_but_a_sentence(small):
    whole, numbers = small.read_bytes(), random.Random(0)
    header = whole.index(b"x.modulation") + 40
    refused = 0
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(numbers.choice((1, 4))):
            data[numbers.randrange(4, header)] = numbers.randrange(256)
        small.write_bytes(data)
        try:
            tensors = open_tensors(small, WHAT)
        except InputError as error:
            assert "\n" not in str(error)
            refused += 1
        else:
            for name in tensors:
                assert tensors[name].shape == tensors.shape(name)
    assert refused > 300


@pytest.mark.parametrize("version", [0, 1, 4])
def test_another_version(small, version):
    changed(small, 4, struct.pack("<I", version))
    assert f"of version {version}; versions 2 and 3 are read" in sentence(small)


def test_version_2(small):
    changed(small, 4, struct.pack("<I", 2))
    assert len(open_tensors(small, WHAT)) == 3


def test_a_file_for_big_endian_computers(package):
    path = package({"a.weight": normal(4, 32)}, endianess=gguf.GGUFEndian.BIG)
    assert "for big-endian computers" in sentence(path)


def test_a_name_that_is_there_twice(package):
    path = package({"a.weight": normal(4, 32), "b.weight": normal(4, 32)})
    changed(path, path.read_bytes().index(b"b.weight"), b"a")
    assert "is a damaged" in sentence(path)


@pytest.mark.parametrize("shape", [[4, 33], [-4, -32], [128, 1, 0], [4.0, 32.0]])
def test_a_real_shape_that_does_not_fit(package, shape):
    path = package(
        {"a.weight": normal(4, 32)}, lambda writer: writer.add_array("comfy.gguf.orig_shape.a.weight", shape)
    )
    assert "is a damaged" in sentence(path)


@pytest.mark.parametrize("alignment", [0, 4, 12])
def test_an_alignment_that_cannot_be(package, alignment):
    path = package({"a.weight": normal(4, 32)}, lambda writer: writer.add_custom_alignment(64))
    changed(path, path.read_bytes().index(b"alignment") + len("alignment") + 4, struct.pack("<I", alignment))
    assert "is a damaged" in sentence(path)


@pytest.mark.parametrize(("number", "name"), [(16, "IQ2_XXS"), (39, "MXFP4"), (99, "type 99"), (15, "type 15")])
def test_a_type_that_is_not_read(small, number, name):
    after_shape = small.read_bytes().index(b"blocks.0.a.weight") + len("blocks.0.a.weight") + 4 + 2 * 8
    changed(small, after_shape, struct.pack("<I", number))
    text = sentence(small)
    assert f"stores blocks.0.a.weight as {name}" in text and "Q4_K" in text


def test_the_command_says_it_of_the_flag(refusal, small):
    small.write_bytes(small.read_bytes()[:-64])
    assert "--dit_path" in refusal(dit_path=small)
