"""What is planned for every weight is what loading does, in every format and with every kind of LoRA."""

from dataclasses import replace

import pytest
import torch
from infinitetalk.pipeline.facts import storages
from infinitetalk.pipeline.lora import open_loras
from infinitetalk.pipeline.models.transformer.attention import choose_attention
from infinitetalk.pipeline.models.transformer.block import Operations
from infinitetalk.pipeline.models.transformer.blocks import TransformerBlocks, is_context_layer
from infinitetalk.pipeline.models.transformer.files import open_transformer
from infinitetalk.pipeline.models.transformer.linear import Linear
from infinitetalk.pipeline.models.transformer.loading import load_transformer, store_matrix
from infinitetalk.pipeline.models.transformer.matrices import LoraPlace, StorageRequest, plan_weights
from infinitetalk.pipeline.models.transformer.pointwise import choose_pointwise
from infinitetalk.pipeline.quantisation.matmul import WEIGHT_ONLY
from infinitetalk.pipeline.residency.staging import Staging
from infinitetalk.tests.support.format_matrix import FORMATS, SIZES
from infinitetalk.tests.support.random_checkpoint import infinitetalk_weights, transformer_weights
from safetensors.torch import save_file

CPU = torch.device("cpu")
SMALL = replace(SIZES, layers=1)
FFN, QUERY, OTHER = "blocks.0.ffn.0", "blocks.0.self_attn.q", "blocks.0.cross_attn.v"
LORAS = {
    "none": {},
    "factors": {f"{QUERY}.lora_up.weight": torch.ones(256, 4), f"{QUERY}.lora_down.weight": torch.ones(4, 256)},
    "whole": {f"{FFN}.diff": torch.ones(256, 256), f"{OTHER}.diff_b": torch.ones(256)},
}
LORAS["both"] = LORAS["factors"] | LORAS["whole"]
MODES = ("auto", "side")
QUANT = {"bf16": ("fp8", "int8"), "scaled fp8 e5m2": ("fp8", "int8"), "GGUF Q4_K": ("fp8", "int8")}


@pytest.fixture(scope="module")
def small():
    return transformer_weights(SMALL), infinitetalk_weights(SMALL)


@pytest.fixture(scope="module", params=FORMATS, ids=lambda form: form.name)
def written(request, small, tmp_path_factory):
    """A format, and a transformer in it."""
    base, audio = small
    folder = tmp_path_factory.mktemp("written")
    files = request.param.write(folder / "base", base), request.param.write(folder / "audio", audio)
    return request.param.name, open_transformer(*files)


@pytest.fixture(scope="module")
def loras(small, tmp_path_factory):
    shapes = {name: tuple(tensor.shape) for weights in small for name, tensor in weights.items()}
    opened = {"none": None}
    for name, tensors in LORAS.items():
        if tensors:
            path = tmp_path_factory.mktemp("lora") / "lora.safetensors"
            save_file({f"diffusion_model.{key}": tensor.clone() for key, tensor in tensors.items()}, path)
            opened[name] = open_loras([path], [0.5], shapes, False)
    return opened


def test_every_matrix_is_kept_as_planned(written, loras):
    name, tensors = written
    seen = set()
    for quant in (None, *QUANT.get(name, ())):
        for kind, lora in loras.items():
            for mode in MODES:
                weights = plan_weights(tensors, StorageRequest(torch.bfloat16, quant, mode), WEIGHT_ONLY, lora)
                for layer in (FFN, QUERY, OTHER):
                    plan = weights.plans[f"{layer}.weight"]
                    packed, branch = store_matrix(f"{layer}.weight", weights, Staging(CPU))
                    taken = packed.nbytes + sum(factor.nbytes for factor in branch or ())
                    assert (packed.storage.facts, taken) == (plan.storage, plan.bytes), (quant, kind, mode, layer)
                    assert (branch is not None) == (plan.lora is LoraPlace.BESIDE)
                    if not plan.made:  # the very memory of the file, where it has no scales to spread
                        other = tensors.packed(f"{layer}.weight").parts["weight"]
                        assert packed.parts["weight"].data_ptr() == other.data_ptr()
                    seen.add(plan.lora)
    assert seen == set(LoraPlace)


@pytest.mark.parametrize("written", [form for form in FORMATS if form.name in QUANT], indirect=True)
@pytest.mark.parametrize("kind", LORAS)
def test_the_sizes_that_memory_is_planned_by_are_those_of_the_loaded_model(written, loras, kind):
    name, tensors = written
    for quant in (None, "int8"):
        weights = plan_weights(tensors, StorageRequest(torch.bfloat16, quant), WEIGHT_ONLY, loras[kind])
        operations = Operations(choose_attention("sdpa", CPU, torch.bfloat16), choose_pointwise("plain", CPU))
        model = load_transformer(weights, operations, TransformerBlocks(CPU, resident=1))
        taken = {name: tensor.nbytes for name, tensor in model.named_parameters()}
        in_block = {name: size for name, size in taken.items() if name.startswith("blocks.")}
        size = weights.size
        assert size.context_bytes == sum(size for name, size in in_block.items() if is_context_layer(name))
        assert size.block_bytes + size.context_bytes == sum(in_block.values())
        assert size.other_bytes == sum(taken.values()) - sum(in_block.values())
        assert size.block_parameters + size.other_parameters == tensors.numel()
        layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, Linear)}
        assert {f"{name}.weight" for name in layers if name.startswith("blocks.")} == {
            name for name, plan in weights.plans.items() if plan.matrix
        }
        for name, layer in layers.items():
            plan = weights.plans.get(f"{name}.weight")
            if plan is not None and plan.matrix:
                assert (layer.storage.facts, layer.multiply.name) == (plan.storage, plan.product), name


@pytest.mark.parametrize("written", [form for form in FORMATS if form.name == "GGUF Q4_K"], indirect=True)
def test_a_whole_difference_makes_floats_of_a_matrix_that_cannot_be_written(written, loras):
    _, tensors = written
    plans = [
        plan_weights(tensors, StorageRequest(torch.bfloat16), WEIGHT_ONLY, loras[kind]).plans
        for kind in ("none", "whole")
    ]
    without, changed = (plan[f"{FFN}.weight"] for plan in plans)
    assert (without.storage.name, changed.storage) == ("GGUF Q4_K", storages.BF16)
    assert changed.made and changed.lora is LoraPlace.FUSED and changed.product == "floats"
    assert changed.bytes == 2 * 256 * 256 and without.bytes == changed.bytes * 4.5 / 16
