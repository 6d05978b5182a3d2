"""The tables of solvers and attention backends, and the code of each: both sides agree, and a row is enough."""

import filecmp
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.facts import packages
from infinitetalk.pipeline.facts.attention import ATTENTION, PLAIN, attention_help, automatic_attention, extra_vectors
from infinitetalk.pipeline.facts.noises import NOISES
from infinitetalk.pipeline.facts.packages import Package
from infinitetalk.pipeline.facts.sizes import size_text
from infinitetalk.pipeline.facts.solvers import SOLVERS, solvers_help, steps_help
from infinitetalk.pipeline.models.transformer.attention import BACKENDS
from infinitetalk.pipeline.sampling.noise import NOISE_MAKERS
from infinitetalk.pipeline.sampling.schedules import DISTILLED_LEVELS
from infinitetalk.pipeline.sampling.solvers import MAKERS
from infinitetalk.pipeline.settings.definition import setting_infos

ENGINE = Path(packages.__file__).parents[1]


def test_every_row_has_its_code_and_all_code_has_a_row():
    assert list(SOLVERS) == list(MAKERS) == [row.name for row in SOLVERS.values()]
    assert list(ATTENTION) == list(BACKENDS) == [row.name for row in ATTENTION.values()]
    assert list(NOISES) == list(NOISE_MAKERS) == [row.name for row in NOISES.values()]
    assert SOLVERS["flowmatch_distill"].steps == len(DISTILLED_LEVELS)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        *((0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 KB"), (51_200, "51.2 KB")),
        *((999_449, "999.4 KB"), (999_999, "1.0 MB"), (71_234_567, "71.2 MB"), (16_400_000_000, "16.40 GB")),
    ],
)
def test_a_small_file_is_not_nothing(size, text):
    assert size_text(size) == text


def test_settings_offer_the_rows():
    infos = setting_infos()
    assert infos["sample_solver"].choices == tuple(SOLVERS) and infos["noise"].choices == tuple(NOISES)
    assert infos["attention"].choices == (
        *("auto", "sdpa", "flash3", "flash3_fp8", "cudnn", "cudnn_fp8", "flash", "sage"),
    )
    assert solvers_help().startswith("euler is upstream's; flowmatch_distill is for 4-step LoRAs; dpm++_sde is")
    assert "; unipc and kijai:unipc need diffusers; " in solvers_help()
    assert steps_help() == "40, or 4 with flowmatch_distill"
    assert "flash3_fp8, cudnn_fp8 and sage compute in 8 bits" in attention_help()


def test_what_is_taken_unasked_is_exact_and_there(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    for row in ATTENTION.values():
        assert bool(row.automatic) == bool(row.fastest_on or row is PLAIN)
        assert not row.automatic or (row.exact and extra_vectors(row.name) == 0)
        assert row.exact or extra_vectors(row.name) > 0
    cards = (None, (8, 9), (9, 0), (10, 0))
    taken = {card: [row.name for row in automatic_attention(card)] for card in cards}
    assert taken == {None: ["sdpa"], (8, 9): ["sdpa"], (9, 0): ["cudnn", "sdpa"], (10, 0): ["sdpa"]}
    monkeypatch.setattr(packages, "find_spec", lambda name: name if name == "flash_attn_interface" else None)
    assert [row.name for row in automatic_attention((9, 0))] == ["flash3", "cudnn", "sdpa"]
    assert extra_vectors("auto") == 0


def test_a_scheduler_of_another_pack_has_one_meaning():
    for theirs in ([name for row in SOLVERS.values() for name in names(row)] for names in (kijai, comfy)):
        assert len(theirs) == len(set(theirs))


def kijai(row):
    return row.kijai


def comfy(row):
    return row.comfy


OLD = "is 0.34.9, 0.35 or newer is needed"
VERSIONS = {"0.35": "", "1.0.2": "", "0.36.0.dev0": "", "0.34.9": OLD, None: "is not installed"}


@pytest.mark.parametrize(("version", "refused"), VERSIONS.items())
def test_a_package_must_be_there_and_new_enough(monkeypatch, version, refused):
    monkeypatch.setattr(packages, "find_spec", lambda name: version)
    monkeypatch.setattr(packages, "version", lambda name: version)
    package = Package("some_module", "some-package", oldest="0.35")
    if not refused:
        assert package.obstacle() is None
        return
    with pytest.raises(
        InputError, match=f"--flag: the Python package some-package {refused}.*'some-package>=0.35', or"
    ):
        package.require("--flag", "another")


# A solver that goes back half a step, PyTorch's own attention, bytes around 128: two edits each, three for the last.
NEW = {
    "facts/solvers.py": ("_ROWS = (\n", '    SolverFacts("midway", "goes half as far", steps=3, comfy=("dpm_2",)),\n'),
    "sampling/solvers.py": (
        "MAKERS: Mapping[str, Maker] = {\n",
        '    "midway": Maker(lambda n, s: Schedule(schedules.upstream_schedule(n, s).levels / 2), EulerSolver),\n',
    ),
    "facts/attention.py": (
        "_ROWS = (\n",
        '    AttentionFacts("mirror", needs_card=False, package=Package("json", "json"), bits=8, vectors=7),\n',
    ),
    "models/transformer/attention.py": (
        "Callable[[torch.device, torch.dtype], Made]] = {\n",
        '    "mirror": lambda device, dtype: (lambda q, k, v: -_sdpa(q, k, v), None),\n',
    ),
    "facts/storages.py": (
        "STORAGES = (\n",
        '    StorageFacts("bytes", 8, "uint8", again="bytes", choice="bytes", row_scales=True, comfy=("bytes",), '
        'written="bytes"),\n',
    ),
    "quantisation/rowwise.py": (
        "FP8 = {torch.float8_e4m3fn: FP8_E4M3, torch.float8_e5m2: FP8_E5M2}\n",
        """

def pack_bytes(matrix: torch.Tensor) -> Packed:
    packed = pack_int8(matrix)
    parts = {"weight": (packed.parts["weight"].short() + 128).to(torch.uint8), "scale": packed.parts["scale"]}
    return Packed(BYTES, parts, packed.shape)


BYTES = Storage(
    storages.BY_NAME["bytes"], lambda p: (p["weight"].float() - 128) * p["scale"][:, None], Requantise(pack_bytes)
)
""",
    ),
    "quantisation/codes.py": ("_ALL = (\n", "    rowwise.BYTES,\n"),
}
USE = """
import torch
from infinitetalk.pipeline.commands import doctor, ways
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.native import sampling
from infinitetalk.pipeline.models.transformer.attention import choose_attention
from infinitetalk.pipeline.planning.machine import choose_machine, choose_vae, describe_computation
from infinitetalk.pipeline.sampling.solvers import make_solver
from infinitetalk.pipeline.settings.flags import build_parser, parse
from infinitetalk.pipeline.settings.validation import resolve

settings = resolve(parse(["--sample_solver", "midway", "--attention", "mirror"]))
assert settings.sample_steps == 3
try:
    resolve(parse(["--sample_solver", "midway", "--sample_steps", "5"]))
except InputError as error:
    assert "has exactly 3 steps" in str(error)
else:
    raise AssertionError("five steps")
text = " ".join(build_parser().format_help().split())
assert "midway goes half as far" in text and "mirror, flash3_fp8, cudnn_fp8 and sage compute in" in text
cpu = torch.device("cpu")
plan = describe_computation(choose_machine(settings.replace(device="cpu")), choose_vae(settings, cpu))
assert "attention by mirror (asked for; in 8 bits, not exact)" in plan, plan
solver = make_solver("midway", 3, 7.0, torch.Generator())
x = torch.ones(2)
assert torch.equal(solver.step(0, x, x), x - float(solver.schedule.levels[0] - solver.schedule.levels[1]))
from pathlib import Path
from infinitetalk.pipeline.checkpoints.files import open_tensors
from infinitetalk.pipeline.checkpoints.writing import converted_parts, converted_specs, write_safetensors
from infinitetalk.pipeline.quantisation.codes import QUANTISERS, pack
from infinitetalk.pipeline.quantisation.matmul import WEIGHT_ONLY
assert resolve(parse(["--quant", "bytes"])).quant == "bytes" and "{bytes,fp8,int8}" in build_parser().format_help()
packed = pack(QUANTISERS["bytes"], torch.randn(4, 8))
specs = converted_specs("a.weight", packed.storage.facts, packed.shape)
write_safetensors(Path("a.safetensors"), specs, converted_parts("a.weight", packed).items(), {})
tensors = open_tensors("a.safetensors", "x")
assert tensors.storage("a.weight").name == "bytes" and torch.equal(tensors["a.weight"], packed.unpacked())
way = WEIGHT_ONLY.of(tensors.packed("a.weight").storage)
assert torch.equal(way(torch.eye(8), packed.parts, None), packed.unpacked().T)
q = torch.randn(1, 5, 2, 8)
assert torch.equal(choose_attention("mirror", cpu, q.dtype)(q, q, q), -choose_attention("sdpa", cpu, q.dtype)(q, q, q))
assert sampling._SAMPLERS["dpm_2"] == "midway"
assert ways._attention("mirror", cpu, q.dtype).found.startswith("works; differs")
assert any(found.what == "json" and "mirror" not in found.found for found in doctor.examine(quick=True))
"""


def test_a_new_solver_backend_or_storage_is_a_row_and_its_code(tmp_path):
    engine = tmp_path / "infinitetalk" / "pipeline"
    shutil.copytree(ENGINE, engine, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ENGINE.parent / "__init__.py", engine.parent)
    for path, (place, line) in NEW.items():
        text = (engine / path).read_text("utf-8")
        assert text.count(place) == 1, path
        (engine / path).write_text(text.replace(place, place + line), "utf-8")
    files = [path.relative_to(ENGINE).as_posix() for path in ENGINE.rglob("*.*") if "__pycache__" not in path.parts]
    changed = filecmp.cmpfiles(ENGINE, engine, files, shallow=False)[1]
    assert sorted(changed) == sorted(NEW)  # two for a solver and a backend, three for a storage
    environment = {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", USE], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
