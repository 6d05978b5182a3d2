"""Ways of keeping a matrix: what each can hold, and that none exists without a rule for LoRA."""

import pytest
import torch
from infinitetalk.pipeline.facts import storages
from infinitetalk.pipeline.quantisation.codes import CODES, pack
from infinitetalk.pipeline.quantisation.rowwise import FP8_E4M3, FP8_E5M2, INT8, pack_fp8, pack_int8, packed_rows
from infinitetalk.pipeline.quantisation.storage import PLAIN, Packed, Requantise, SideBranch, Storage

NEW = storages.StorageFacts("new", 4, "uint8")


def matrix(rows=64, columns=256, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, columns, generator=generator) * torch.logspace(-4, 2, rows)[:, None]


def error(packed, whole):
    """Relative error, row by row: rows of every size count alike."""
    return ((packed.unpacked().float() - whole).norm(dim=1) / whole.norm(dim=1)).mean().item()


@pytest.mark.parametrize(("pack", "bound"), [(pack_fp8, 0.03), (pack_int8, 0.01)])
def test_rows_of_every_size_keep_the_formats_precision(pack, bound):
    whole = matrix()
    packed = pack(whole)
    assert bound / 3 < error(packed, whole) < bound
    assert packed.parts["weight"].dtype.itemsize == 1 and packed.parts["scale"].dtype == torch.float32
    assert packed.shape == whole.shape and packed.nbytes == whole.numel() + 4 * len(whole)


@pytest.mark.parametrize("facts", [facts for facts in storages.STORAGES if facts.again == facts.name])
def test_what_the_facts_say_of_exactness(facts):
    whole = matrix(columns=1024)
    found = error(pack(facts, whole), whole)
    said = 0 if facts.exactness == "exact" else float(facts.exactness.removesuffix(" %")) / 100
    assert found == pytest.approx(said, rel=0.25)


@pytest.mark.parametrize("pack", [pack_fp8, pack_int8])
def test_the_largest_number_of_a_row_is_exact_and_zeros_stay_zeros(pack):
    whole = torch.zeros(3, 8)
    whole[1, 2], whole[2, 3] = -7.0, 1e-6
    assert torch.equal(pack(whole).unpacked(), whole)


@pytest.mark.parametrize("pack", [pack_fp8, pack_int8])
def test_storing_again_what_was_read_changes_nothing(pack):
    once = pack(matrix()).unpacked()
    assert torch.allclose(pack(once).unpacked(), once, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
@pytest.mark.parametrize("shape", [None, (), (1,), (4,), (4, 1)])
def test_a_files_scales_in_every_shape(dtype, shape):
    weight = torch.arange(-16, 16).reshape(4, 8).to(dtype)
    scale = None if shape is None else torch.full(shape, 0.25)
    packed = packed_rows(weight, scale)
    assert torch.equal(packed.unpacked(), weight.float() * (1.0 if shape is None else 0.25))


def test_a_wrong_number_of_scales():
    with pytest.raises(ValueError, match="3 scales for 4 rows"):
        packed_rows(torch.zeros(4, 8, dtype=torch.int8), torch.ones(3))


def test_a_storage_without_a_rule_for_lora_does_not_construct():
    with pytest.raises(TypeError):
        Storage(NEW, lambda parts: parts["weight"])
    with pytest.raises(TypeError, match="say how a LoRA is fused"):
        Storage(NEW, lambda parts: parts["weight"], None)
    assert Storage(NEW, lambda parts: parts["weight"], SideBranch("cannot be written")).fuse.reason


@pytest.mark.parametrize("storage", [FP8_E4M3, FP8_E5M2, INT8, *PLAIN.values()], ids=lambda storage: storage.name)
def test_fusing_is_adding_and_storing_again(storage):
    whole, delta = matrix(seed=1), matrix(seed=2)
    assert isinstance(storage.fuse, Requantise)
    fused = storage.fuse.pack(whole + delta)
    assert isinstance(fused, Packed)
    assert error(fused, whole + delta) < 0.03


def test_facts_and_code_agree():
    assert set(CODES) == set(storages.STORAGES) and len(storages.BY_NAME) == len(storages.STORAGES)
    for facts, code in CODES.items():
        assert code.facts is facts
        if isinstance(code.fuse, SideBranch):
            assert facts.again is None
            continue
        stored = code.fuse.pack(matrix(8, 32))
        assert stored.storage.facts is storages.BY_NAME[facts.again]
        assert stored.nbytes == stored.storage.facts.bytes(stored.shape)
        assert stored.parts.keys() == ({"weight", "scale"} if stored.storage.facts.row_scales else {"weight"})
        assert stored.parts["weight"].dtype == getattr(torch, stored.storage.facts.dtype)


@pytest.mark.parametrize("facts", [facts for facts in storages.STORAGES if facts.written or facts.comfy])
def test_what_is_written_is_read_as_the_same(facts):
    assert facts.written in facts.comfy and facts.choice in storages.choices()
