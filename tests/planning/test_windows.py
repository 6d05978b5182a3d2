"""The plan: windows against upstream's loop, tokens, memory, and what --dry_run prints and refuses."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.commands.timing import transformer_size
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.facts.buckets import target_size
from infinitetalk.pipeline.facts.model_sizes import WAN_14B
from infinitetalk.pipeline.job.job import BUNDLED
from infinitetalk.pipeline.planning.machine import choose_dtype, choose_vae, free_memory
from infinitetalk.pipeline.planning.memory import (
    GIB,
    MARGIN,
    VAE_TILES,
    Placement,
    TransformerSize,
    VaePlan,
    Workload,
    estimate_memory,
    place_blocks,
    plan_memory,
)
from infinitetalk.pipeline.planning.notices import cut_notice
from infinitetalk.pipeline.planning.windows import tokens_per_window, window_plan
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.presets import settings_with_preset
from infinitetalk.pipeline.settings.validation import resolve
from infinitetalk.tests.support import random_checkpoint


def upstreams_video(num_frames, frame_num, motion_frame, max_frame_num):
    """Starts of windows and frames of the video, by the loop of upstream's wan/multitalk.py."""
    starts, frames, arrived = [], 0, False
    start = 0
    while True:
        starts.append(start)
        frames += frame_num if start == 0 else frame_num - motion_frame
        if arrived:
            break
        start += frame_num - motion_frame
        arrived = start + frame_num >= min(max_frame_num, num_frames)
        if max_frame_num <= frame_num:
            break
    return starts, min(frames, max_frame_num, num_frames)


WINDOWS = st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(4 * n + 1), st.integers(1, 4 * n)))


@hypothesis_settings(deadline=None)
@given(WINDOWS, st.integers(1, 400), st.integers(1, 500))
def test_windows_are_upstreams(window, more, longest):
    frame_num, motion_frame = window
    num_frames = frame_num + more  # upstream refuses speech that fits into one window
    spans = window_plan(num_frames, frame_num, motion_frame, longest)
    starts, frames = upstreams_video(num_frames, frame_num, motion_frame, longest)
    assert [span.start for span in spans] == starts
    assert spans[-1].start + spans[-1].keep_to == frames


@hypothesis_settings(deadline=None)
@given(WINDOWS, st.integers(1, 600), st.none() | st.integers(1, 600))
def test_windows_make_every_frame_once(window, num_frames, longest):
    frame_num, motion_frame = window
    spans = window_plan(num_frames, frame_num, motion_frame, longest)
    made = [span.start + frame for span in spans for frame in range(span.keep_from, span.keep_to)]
    assert made == list(range(min(num_frames, longest or num_frames)))
    assert all(span.stop - span.start == frame_num and span.keep_to > span.keep_from for span in spans)
    assert [span.index for span in spans] == list(range(len(spans)))


def test_known_lengths():
    assert len(window_plan(1000, 81, 9)) == 14  # 81 + 13 * 72 = 1017 >= 1000
    assert len(window_plan(1000, 81, 25)) == 18
    assert len(window_plan(10**6, 81, 9, 750)) == 11
    assert len(window_plan(82, 81, 9)) == 2
    assert len(window_plan(3, 81, 9)) == 1


def test_no_speech_is_refused():
    with pytest.raises(InputError, match="shorter than one video frame"):
        window_plan(0, 81, 9)


def test_tokens_are_those_of_the_published_sizes():
    assert tokens_per_window(81, 640, 640) == 33_600
    assert tokens_per_window(81, 480, 832) == 32_760
    assert tokens_per_window(81, 960, 960) == 75_600


WORK = Workload(tokens=33_600, passes=2, pixels=640 * 640, itemsize=2)


def estimates(size):
    return lambda placement: estimate_memory(size, placement, WORK)


def test_resident_blocks_as_asked_for():
    size = TransformerSize(40, 464, 316, 5120, 13824, block_bytes=718, context_bytes=210, other_bytes=632, scratch=0)

    def resident(persistent, swapped, free=None):
        placement = place_blocks(size, persistent, swapped, estimates(size), free)
        assert placement.contexts == (placement.resident == 40)
        return placement.resident

    assert resident(None, None) == 40
    assert resident(None, 30) == 10
    assert resident(None, 50) == 0
    assert resident(0, None, free=2**50) == 0
    assert resident(316 + 2 * 464 + 1, None) == 2
    assert resident(10**6, None) == 40


def test_as_many_blocks_stay_as_fit():
    estimate = estimates(REAL)
    for gib, expected in ((80, 40), (5, 0)):
        assert place_blocks(REAL, None, None, estimate, gib * GIB) == Placement(expected, expected == 40)
    some = place_blocks(REAL, None, None, estimate, 24 * GIB).resident
    assert 5 < some < 35
    assert estimate(Placement(some, False)).peak < 24 * GIB < estimate(Placement(some + 3, False)).peak


def test_what_is_needed_once_stays_only_beside_all_blocks_and_where_it_fits():
    estimate = estimates(REAL)
    whole, without = (estimate(Placement(40, contexts)).peak for contexts in (True, False))
    assert whole - without == 40 * REAL.context_bytes
    for free, contexts in ((whole + MARGIN, True), (whole + MARGIN - 1, False), (without + MARGIN, False)):
        assert place_blocks(REAL, None, None, estimate, free) == Placement(40, contexts)
    assert place_blocks(REAL, None, None, estimate, without + MARGIN - 1) == Placement(39, False)


def test_with_offload_the_blocks_leave_before_the_vae_comes():
    counts = REAL, Placement(40, True), WORK
    offloaded = estimate_memory(*counts, offload=True)
    assert offloaded.weights_left == REAL.other_bytes < estimate_memory(*counts).weights_left
    assert offloaded.peak == offloaded.contexts + offloaded.weights + offloaded.activations


REAL = TransformerSize(40, 464_200_000, 315_600_000, 5120, 13824, 718_700_000, 209_700_000, 631_200_000, scratch=0)


def a_card(gib, major=9):
    """What PyTorch tells of one."""
    return SimpleNamespace(total_memory=gib * GIB, major=major)


@pytest.mark.parametrize(
    ("preset", "given", "gib", "resident"),
    [
        ("05_low_vram", {}, 6, 0),
        ("02_comfyui_equivalent", {"num_persistent_param_in_dit": None, "blocks_to_swap": 0}, 20, 40),
        ("06_720p_high_res", {}, 12, 0),
        ("04_high_quality", {}, 18, 12),
    ],
)
def test_steps_of_the_presets_fit_small_cards(preset, given, gib, resident):
    """All but the VAE, whose memory is another matter."""
    settings = resolve(settings_with_preset(preset, **given))
    height, width = target_size(settings.size, 1, 1)
    size = transformer_size(WAN_14B, settings.quant is not None, itemsize=2)
    placement, memory = plan_memory(
        size, settings, Workload.of(settings, (height, width), 2), gib * GIB, VaePlan(torch.bfloat16)
    )
    assert placement.resident >= resident
    assert memory.weights + memory.contexts + memory.activations + MARGIN <= gib * GIB


BF16, ON_THE_CARD = torch.bfloat16, {"offload_model": False, "vae_dtype": "fp32"}


@pytest.mark.parametrize(
    ("preset", "given", "gib", "stayed", "vae", "in_use"),
    [
        ("01_ultra_fast", {}, 10, 0, VaePlan(BF16, 2), 4.95),
        ("02_comfyui_equivalent", {}, 12, 0, VaePlan(BF16, 2), 4.79),
        ("03_balanced", {}, 14, 0, VaePlan(BF16, 2), 5.59),
        ("04_high_quality", {}, 18, 15, VaePlan(BF16, 2), 16.35),
        ("05_low_vram", {}, 10, 0, VaePlan(BF16, 2), 4.63),
        ("05_low_vram", {}, 6, 0, VaePlan(BF16, 4), 4.79),
        ("06_720p_high_res", {}, 22, 37, VaePlan(BF16, 4), 19.82),
        ("06_720p_high_res", {}, 12, 7, VaePlan(BF16, 4), 9.77),
        ("02_comfyui_equivalent", ON_THE_CARD, 20, 40, VaePlan(torch.float32, 4), 18.1),
        ("02_comfyui_equivalent", ON_THE_CARD, 70, 40, VaePlan(torch.float32, 1), 26.1),
        ("02_comfyui_equivalent", {"offload_model": False}, 70, 40, VaePlan(BF16, 1), 22.74),
    ],
)
def test_plans_are_near_the_peaks_that_were_measured(monkeypatch, preset, given, gib, stayed, vae, in_use):
    """Memory in use at its peak under a cap, GiB, real size, with the blocks that stayed (benchmarks/README.md)."""
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: a_card(gib))
    kept = {"num_persistent_param_in_dit": None, "blocks_to_swap": WAN_14B.num_layers - stayed}
    settings = resolve(settings_with_preset(preset, **given, **kept))
    height, width = target_size(settings.size, 1, 1)
    assert choose_vae(settings, torch.device("cuda")) == vae
    size = transformer_size(WAN_14B, settings.quant is not None, itemsize=2)
    _, memory = plan_memory(size, settings, Workload.of(settings, (height, width), 2), gib * GIB, vae)
    # A VAE in one piece is counted with all that the allocator may hold for it.
    more = {VaePlan(torch.float32): 4, VaePlan(BF16): 1}.get(vae, 0.5)
    assert -0.5 < memory.peak / GIB - in_use < more


@pytest.mark.parametrize(
    ("gib", "changes", "expected"),
    [
        (12, {}, torch.bfloat16),
        (80, {}, torch.bfloat16),
        (80, {"vram_limit": 12}, torch.bfloat16),
        (12, {"vae_dtype": "fp32"}, torch.float32),
        (80, {"vae_dtype": "bf16"}, torch.bfloat16),
        (24, {"dtype": "fp32"}, torch.float32),
        (24, {"dtype": "fp32", "vae_dtype": "bf16"}, torch.bfloat16),
        (24, {"dtype": "fp16"}, torch.bfloat16),
    ],
)
def test_the_vaes_dtype_follows_from_the_settings(monkeypatch, gib, changes, expected):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: a_card(gib))
    assert choose_vae(Settings(**changes), torch.device("cuda")).dtype == expected
    on_a_cpu = torch.bfloat16 if changes.get("vae_dtype") == "bf16" else torch.float32
    assert choose_vae(Settings(**changes), torch.device("cpu")) == VaePlan(on_a_cpu)


@pytest.mark.parametrize(
    ("major", "changes", "transformer", "vae"),
    [
        (7, {}, torch.float16, torch.float32),
        (8, {}, torch.bfloat16, torch.bfloat16),
        (12, {}, torch.bfloat16, torch.bfloat16),
        (7, {"dtype": "bf16", "vae_dtype": "bf16"}, torch.bfloat16, torch.bfloat16),
        (7, {"dtype": "fp32"}, torch.float32, torch.float32),
    ],
)
def test_cards_without_bf16_take_what_they_have(monkeypatch, major, changes, transformer, vae):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: a_card(11, major))
    settings, card = Settings(**changes), torch.device("cuda")
    assert choose_dtype(settings.dtype, card) == transformer
    assert choose_vae(settings, card).dtype == vae


@pytest.mark.parametrize(
    ("gib", "changes"),
    [
        (80, {}),
        (24, {}),
        (12, {}),
        (6, {}),
        (12, {"size": "infinitetalk-720"}),
        (80, {"vram_limit": 12, "size": "infinitetalk-720"}),
        (8, {"vae_dtype": "fp32"}),
    ],
)
def test_the_vae_leaves_most_of_the_card_by_tiles(monkeypatch, gib, changes):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: a_card(gib))
    plan = choose_vae(Settings(**changes), torch.device("cuda"))
    height, width = target_size(Settings(**changes).size, 1, 1)
    total = min(gib, changes.get("vram_limit", gib)) * GIB
    assert plan.bytes(height * width) <= plan.room(total) <= total / 3
    fewer = [tiles for tiles in VAE_TILES if tiles < plan.tiles]
    assert all(replace(plan, tiles=tiles).bytes(height * width) > plan.room(total) for tiles in fewer)
    assert plan.tiles == 1 or gib < 80 or changes
    assert choose_vae(Settings(**changes), torch.device("cpu")).tiles == 1


def test_a_limit_leaves_what_others_have_and_never_more_than_is_free(monkeypatch):
    card = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 * GIB, 24 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 4 * GIB)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 3 * GIB)
    assert [free_memory(card, limit) for limit in (None, 8, 20, 2)] == [11 * GIB, 5 * GIB, 11 * GIB, 0]
    assert free_memory(torch.device("cpu"), 8) is None


@pytest.mark.parametrize(("limit", "least"), [(10, 0), (18, 10), (30, 35)])
def test_more_memory_keeps_more_blocks_and_the_estimate_within_it(limit, least):
    fp8 = transformer_size(WAN_14B, quantised=True, itemsize=2)
    settings = resolve(Settings(sample_text_guide_scale=1.0))
    work = Workload.of(settings, (640, 640), 2)
    placement, memory = plan_memory(fp8, settings, work, limit * GIB, VaePlan(torch.bfloat16))
    assert placement.resident >= least and memory.peak + (MARGIN if placement.resident else 0) <= limit * GIB


def test_a_cut_is_said_only_when_there_is_one():
    assert cut_notice(4.0, 4.0) == ()
    (notice,) = cut_notice(4.0, 2.0)
    assert "after 2.00 s" in notice and "lasts 4.00 s" in notice


@pytest.fixture
def argv(model_files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return [
        "--dry_run",
        *(f"--{name}={path}" for name, path in model_files.items()),
        *("--device", "cpu"),
        *("--image", str(BUNDLED / "portrait.png"), "--audio", str(BUNDLED / "speech.wav"), "--prompt", "p"),
    ]


def test_dry_run_prints_the_plan_and_makes_nothing(argv, capsys):
    assert main([*argv, "--sample_text_guide_scale", "1", "--sample_steps", "8", "--size", "200x192"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and list(Path().iterdir()) == []
    assert "192x192" in out and "2 of 81 frames, the next one 72 frames later" in out
    assert "3024 tokens, 8 steps of 2 passes" in out and "32 passes through the transformer" in out
    assert "GiB" in out and "2 of 2 blocks stay there" in out and "note" not in out


def test_dry_run_counts_passes_of_guidance_that_ends(argv, capsys):
    flags = ["--sample_text_guide_scale", "1", "--sample_steps", "8", "--size", "200x192"]
    assert main([*argv, *flags, "--sample_audio_guide_steps", "3"]) == 0
    out = capsys.readouterr().out
    assert "8 steps, 3 of 2 passes and 5 of 1 pass\n" in out and "22 passes through the transformer" in out


def test_dry_run_says_that_the_speech_is_cut(argv, capsys):
    assert main([*argv, "--max_frame_num", "50"]) == 0
    out = capsys.readouterr().out
    assert "50 frames, 2.00 s" in out and "ends the video after 2.00 s" in out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--ckpt_dir", "none"], "--ckpt_dir is missing"),
        (["--ckpt_dir", "nowhere"], "--ckpt_dir: nowhere is not a folder"),
        (["--wav2vec_dir", "none"], "--wav2vec_dir: it is missing"),
        (["--wav2vec_dir", "."], "neither model.safetensors nor pytorch_model.bin"),
        (["--infinitetalk_dir", "none"], "--infinitetalk_dir is missing"),
        (["--vae", "nowhere.pth"], "--vae: nowhere.pth does not exist"),
        (["--tokenizer", "nowhere"], "nowhere"),
        (["--device", "cuda:99"], "--device: cuda:99 found"),
        (["--attention", "flash"], "--attention flash needs a CUDA card"),
    ],
)
def test_dry_run_refuses_what_a_run_would_miss(argv, capsys, flags, sentence):
    assert main([*argv, *flags]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["text_encoder", "clip_vision", "vae", "wav2vec_dir", "dit_path"])
def test_dry_run_tells_a_file_of_another_kind(argv, capsys, weights, flag):
    name = random_checkpoint.CLIP_FILE if flag == "vae" else random_checkpoint.VAE_FILE
    assert main([*argv, f"--{flag}", str(weights.ckpt_dir / name)]) == 2
    assert f"--{flag}" in capsys.readouterr().err


def test_dry_run_misses_a_file_of_the_base_and_its_tokenizer(argv, capsys, weights, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(weights.ckpt_dir, folder)
    shutil.rmtree(folder / "google")
    assert main([*argv, "--ckpt_dir", str(folder)]) == 2
    assert "--tokenizer is missing" in capsys.readouterr().err
    (folder / random_checkpoint.VAE_FILE).unlink()
    assert main([*argv, "--ckpt_dir", str(folder)]) == 2
    sentence = capsys.readouterr().err
    assert random_checkpoint.VAE_FILE in sentence and "infinitetalk download vae tokenizer" in sentence


def test_whole_windows_keep_what_lies_behind_the_speech():
    cut, kept = (window_plan(250, 81, 25, whole=whole) for whole in (False, True))
    assert kept[:-1] == cut[:-1] and kept[-1].start == cut[-1].start
    assert (cut[-1].start + cut[-1].keep_to, kept[-1].start + kept[-1].keep_to) == (250, 305)
