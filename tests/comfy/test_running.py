"""Graphs on a real server: progress, preview, cancelling, going on, and what runs again after a change."""

import re
from pathlib import Path

import av
import pytest
from infinitetalk.pipeline.facts.downloads import STAND_INS
from infinitetalk.pipeline.graphs.widgets import BY_LINK
from infinitetalk.pipeline.job.record import read_record
from infinitetalk.tests.support.comfy_graphs import executed, node, texts
from infinitetalk.tests.support.comfy_host import Refused


def read_bytes(host):
    """Bytes that the server has read from files."""
    return int(re.search(r"^rchar: (\d+)", Path(f"/proc/{host.pid}/io").read_text(), re.MULTILINE)[1])


def error_of(entry):
    assert entry["status"]["status_str"] == "error"
    return next(data["exception_message"] for kind, data in entry["status"]["messages"] if kind == "execution_error")


def test_progress_is_over_the_whole_video_and_shows_a_picture(run, graph, video_of):
    entry, seen = run(graph(base_seed=1))
    bar = [(m.data["value"], m.data["max"]) for m in seen if m.type == "progress" and m.data["node"] == "sampler"]
    assert {most for _, most in bar} == {6}  # two windows of two steps and decoding
    assert [value for value, _ in bar] == sorted(value for value, _ in bar)
    assert {0, 6} < {value for value, _ in bar}  # newer hosts leave out some of what comes quickly
    pictures = [m for m in seen if m.type == "preview"]
    assert len(pictures) >= 6 and all(b"\xff\xd8\xff" in m.payload for m in pictures)  # JPEG
    said = "\n".join(texts(seen))
    assert "window 2/2, step 1/2" in said and "of 1.00 s of video" in said and " left" in said
    with av.open(str(video_of(entry))) as video:
        assert sum(1 for _ in video.decode(video=0)) == 25
        assert {"prompt", "infinitetalk"} <= set(video.metadata)


def test_second_run_reads_no_weights_again(run, graph, video_of, host):
    first, _ = run(graph(base_seed=2))
    before = read_bytes(host)
    for change in ({"base_seed": 3}, {"prompt": "Another prompt."}, {"sample_steps": 3, "sample_shift": 5.0}):
        entry, seen = run(graph(**{"base_seed": 2, **change}))
        assert video_of(entry) != video_of(first)
        assert executed(seen) == ["sampler"]
        assert not any("loading" in text for text in texts(seen))
    assert read_bytes(host) - before < 3_000_000  # of files the videos alone, which are read back


def test_same_graph_runs_nothing_and_a_lost_video_is_made_again(run, graph, video_of):
    entry, _ = run(graph(base_seed=4))
    _, seen = run(graph(base_seed=4))
    assert executed(seen) == []
    made = video_of(entry).read_bytes()
    video_of(entry).unlink()
    again, seen = run(graph(base_seed=4))
    assert executed(seen) == ["sampler"]
    assert video_of(again).read_bytes() == made
    _, seen = run(graph(base_seed=4))
    assert executed(seen) == []


def test_free_empties_host_memory_and_the_next_run_loads_again(host, run, graph):
    run(graph(base_seed=6))
    host.free()
    _, seen = run(graph(base_seed=7))
    assert any("loading the transformer" in text for text in texts(seen))


def test_a_change_runs_again_only_what_follows_from_it(run, graph):
    run(graph(base_seed=8))
    for change, again in (
        ({"prompt": "Other words."}, {"sampler"}),
        ({"blocks_to_swap": 1}, {"model", "sampler"}),
    ):
        _, seen = run(graph(base_seed=8, **change))
        assert set(executed(seen)) == again
    words = {"class_type": "PrimitiveString", "inputs": {"value": "Linked words."}}
    entry, seen = run(graph(base_seed=8, prompt=["words", 0], nodes={"words": words}))
    assert entry["status"]["status_str"] == "success" and "speech" not in executed(seen)


def test_interrupt_stops_within_a_step_and_the_run_goes_on_later(host, run, graph, video_of):
    made = graph(sample_steps=5, base_seed=5)
    with host.listen() as listener, host.hold("window 2/2, step 3/5"):
        prompt = host.queue(made, listener.client)
        listener.until_said("window 2/2, step 3/5")
        host.post("/interrupt")
        host.go_on()
        seen = listener.until_end(prompt)
    assert seen[-1].type == "execution_interrupted"
    assert not any("window 2/2, step" in text for text in texts(seen))
    (partial,) = (host.base / "output" / "video").glob("*.partial.mp4")
    listed = host.get_json("/infinitetalk/unfinished")["videos"]
    assert f"video/{partial.name}" in [each["name"] for each in listed]
    made = graph(sample_steps=5, base_seed=5, filename_prefix="later/talk")  # whatever it is called by now
    entry, seen = run(made)
    assert "going on after window 1/2" in "\n".join(texts(seen))
    assert not any("loading" in text for text in texts(seen))
    assert video_of(entry).name == partial.name.replace(".partial", "") and not partial.exists()
    resumed = video_of(entry).read_bytes()
    video_of(entry).unlink()
    unbroken, _ = run(made)
    assert video_of(unbroken).read_bytes() == resumed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"frame_num": 18}, '"frames per window" of the Streaming Sampler: 18 found, 4n+1 expected'),
        ({"motion_frame": 40}, 'fewer than "frames per window"'),
        ({"sample_solver": "euler2"}, "one of euler"),
        ({"size": "big"}, "'big' is not known"),
        ({"quant_dir": "none", "quant": "none", "quant_matmul": "on"}, '"8-bit products" of the Model Loader on: '),
        ({"dit_path": "gone.safetensors"}, "'gone.safetensors' is not in models/diffusion_models"),
        ({"dit_path": "../../etc/passwd"}, "'../../etc/passwd' is not a name"),
    ],
)
def test_bad_values_are_one_clear_sentence(run, graph, change, sentence):
    (name, value), *_ = change.items()
    try:
        entry, _ = run(graph(**change))
    except Refused as refused:  # newer hosts look themselves if a list holds the value
        assert f"{name}: {value!r} not in" in str(refused) or sentence in str(refused)
    else:
        assert sentence in error_of(entry)


def test_reference_must_be_one(run, graph):
    without = graph()
    del without["sampler"]["inputs"]["image"]
    entry, _ = run(without)
    assert "neither linked" in error_of(entry)


def test_values_out_of_range_are_refused_before_anything_runs(host, graph):
    with pytest.raises(Refused, match="bigger than max"):
        host.queue(graph(crf=52))


def test_a_presets_lora_is_stood_in_for_and_the_page_hears_of_it(run, graph, video_of, base):
    own, other = next(iter(STAND_INS.items()))
    loras = base / "models" / "loras"
    (loras / own).rename(loras / other)
    made = graph({"preset": node("InfiniteTalkPreset", preset="01_ultra_fast")}, base_seed=90)
    made["model"]["inputs"]["preset"] = ["preset", 0]
    try:
        entry, seen = run(made)
    finally:
        (loras / other).rename(loras / own)
    assert video_of(entry).is_file()
    said = [message.data["text"] for message in seen if message.type == "infinitetalk.notice"]
    assert any(f"{own} is not there" in text and f"{other} takes its place" in text for text in said), said


def test_under_a_preset_the_seed_is_free_and_linked_values_win(run, graph, video_of):
    small = {"size": "64x64", "frame_num": 17, "motion_frame": 5}
    made = graph({"preset": node("InfiniteTalkPreset", preset="03_balanced"), "steps": node("PrimitiveInt", value=2)})
    made["sampler"]["inputs"] |= {**small, BY_LINK: " ".join(small), "sample_steps": ["steps", 0], "sample_shift": 1.0}
    made["sampler"]["inputs"]["preset"] = ["preset", 0]
    videos = {}
    for seed in (51, 52):
        made["sampler"]["inputs"]["base_seed"] = seed
        entry, _ = run(made)
        settings = read_record(video_of(entry)).settings
        assert (settings["base_seed"], settings["sample_steps"], settings["sample_shift"]) == (seed, 2, 7.0)
        assert settings["sample_audio_guide_scale"] == 3.0
        videos[seed] = video_of(entry)
    assert videos[51] != videos[52] and videos[51].read_bytes() != videos[52].read_bytes()


def test_errors_bear_no_path_of_a_module_and_come_from_the_node_that_knows(run, graph):
    entry, seen = run(graph(quant_matmul="on"))
    (error,) = (message.data for message in seen if message.type == "execution_error")
    assert error["exception_type"] == "InfiniteTalkError" and error["node_id"] == "model"
    assert "--" not in error["exception_message"]


def test_videos_are_numbered_and_those_of_other_names_are_left_alone(run, graph, video_of):
    first, _ = run(graph(base_seed=61, filename_prefix="numbers/talk"))
    second, _ = run(graph(base_seed=62, filename_prefix="numbers/talk"))
    assert [video_of(entry).name for entry in (first, second)] == ["talk_00001_.mp4", "talk_00002_.mp4"]
    again, seen = run(graph(base_seed=61, filename_prefix="numbers/talk", crf=18, blocks_to_swap=1))
    assert video_of(again) == video_of(first) and any("finished already" in text for text in texts(seen))


def test_a_size_is_chosen_or_given_by_its_sides(run, graph, video_of):
    sizes = {}
    for name, widgets in (
        ("words", {"size": "width x height", "width": 64, "height": 96}),
        ("text", {"size": "64x96"}),
    ):
        made = graph(base_seed=63)
        made["sampler"]["inputs"] |= widgets
        entry, _ = run(made)
        sizes[name] = video_of(entry)
    assert sizes["words"] == sizes["text"]
    settings = read_record(sizes["words"]).settings
    assert settings["size"] == "64x96"


def test_of_several_pictures_the_page_hears_which_one_is_taken(run, graph, video_of):
    batch = {
        "other": node("ImageScaleBy", image=["image", 0], upscale_method="bilinear", scale_by=1.0),
        "batch": node("ImageBatch", image1=["image", 0], image2=["other", 0]),
    }
    made = graph(batch, base_seed=64)
    made["sampler"]["inputs"]["image"] = ["batch", 0]
    entry, seen = run(made)
    assert video_of(entry).is_file()
    said = [message.data["text"] for message in seen if message.type == "infinitetalk.notice"]
    assert any("2 pictures are linked; the first one" in text for text in said)
