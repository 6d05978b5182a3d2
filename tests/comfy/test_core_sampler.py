"""The streaming loop around ComfyUI's own model, on a server that has the core's node for a window."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest
from infinitetalk.scripts.core_workflow import NAME as WORKFLOW
from infinitetalk.tests.support import browser, comfy_host, core_models
from infinitetalk.tests.support.comfy_graphs import executed, node, texts
from infinitetalk.tests.support.core_graphs import NAMES, SMALL, loaded, one_window, small, streamed
from infinitetalk.tests.support.places import ASSETS, QUEUED, ROOT, WORKFLOWS
from safetensors.torch import load_file, save_file

SAMPLER = "InfiniteTalkCoreSampler"
PICTURES = os.environ.get("SAVE_PICTURES")  # a folder, to look at what the page shows
CHOOSE = """
(chosen) => {
  for (const node of app.graph.nodes)
    for (const widget of node.widgets ?? []) {
      const value = chosen[node.type]?.[widget.name]
      if (value !== undefined && !Array.isArray(value) && node.type !== 'CLIPTextEncode') widget.value = value
    }
}
"""


@pytest.fixture(scope="session")
def core(host, tmp_path_factory):
    """The server's folder with small files of the core's own models."""
    if "InfiniteTalkCoreSampler" not in host.get_json("/object_info"):
        pytest.skip("this ComfyUI has no WanInfiniteTalkToVideo: make test-hosts COMFYUI=path/to/a/newer/ComfyUI")
    core_models.write(host.base / "models", tmp_path_factory.mktemp("tokenizer"))
    for name in ("portrait.png", "speech.wav"):
        shutil.copy(ASSETS / name, host.base / "input")
    return host.base


def frames(path):
    with av.open(str(path)) as video:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)])


def error_of(entry):
    assert entry["status"]["status_str"] == "error"
    return next(data["exception_message"] for kind, data in entry["status"]["messages"] if kind == "execution_error")


def test_one_window_is_that_of_the_cores_own_graph(core, run, host, video_of):
    entry, _ = run(one_window())
    assert entry["status"]["status_str"] == "success", entry["status"]
    folder = host.base / "output" / "core"
    saved = [folder / picture["filename"] for picture in entry["outputs"]["saved"]["images"]]
    expected = np.concatenate([frames(path) for path in saved])[:15]
    entry, seen = run(streamed(color_correction_strength=0.0, crf=0))
    made = frames(video_of(entry))
    assert made.shape == (15, 64, 64, 3) and expected.std() > 10
    difference = made.astype(int) - expected  # the core's node for pictures rounds down, ours to the nearest level
    assert difference.min() >= 0 and difference.max() <= 1
    assert "of 0.60 s of video" in "\n".join(texts(seen))
    with av.open(str(video_of(entry))) as video:
        assert video.streams.audio and "prompt" in video.metadata
        assert abs(float(video.streams.audio[0].duration * video.streams.audio[0].time_base) - 0.6) < 0.05


@pytest.fixture(scope="module")
def compared(core, installed, tmp_path_factory):
    """Windows by the core's nodes and by ours, number by number, in a process of their own."""
    place = tmp_path_factory.mktemp("place")
    (place / "infinitetalk").symlink_to(ROOT, target_is_directory=True)
    environment = {**os.environ, "PYTHONPATH": str(place), "OMP_NUM_THREADS": "1"}
    command = [installed.python, "-m", "infinitetalk.tests.support.core_process", installed.source, core]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((core / "found.json").read_text())


def test_latents_are_those_of_the_cores_own_graph(compared):
    """The first window bit for bit; the next ones but for the rounding of the frames that they start from."""
    first, *later = compared["latents"]
    assert first == 0 and compared["scale"] > 1
    assert max(later) < 1e-4 * compared["scale"]


def test_speech_of_any_length_is_given_in_parts(compared):
    """Parts of it say the same as the whole, to the rounding of a sum of two halves."""
    assert max(compared["latents of parts"]) < 1e-4 * compared["scale"]
    assert compared["levels of parts"] <= 1


def test_two_prompts_may_be_computed_at_once(compared):
    assert compared["guided otherwise"] > 0.01 * compared["scale"]


def test_ten_windows_hold_memory_flat(compared):
    held = compared["held"]
    assert len(held) == 10 and len({now for now, _ in held}) == 1 and len({peak for _, peak in held[1:]}) == 1


def test_model_and_prompts_are_as_good_as_a_guider(core, run, video_of):
    guided, _ = run(streamed())
    apart, _ = run(streamed(guider=None, model=["model", 0], positive=["positive", 0], cfg=1.0))
    assert (frames(video_of(guided)) == frames(video_of(apart))).all()
    both = {"model": ["model", 0], "positive": ["positive", 0], "negative": ["negative", 0]}
    stronger, _ = run(streamed(guider=None, **both, cfg=3.0))  # the core computes both prompts at once
    assert (frames(video_of(stronger)) != frames(video_of(guided))).any()
    assert "guider and model: both are linked" in error_of(run(streamed(model=["model", 0]))[0])
    assert "link one, or model and positive" in error_of(run(streamed(guider=None, positive=["positive", 0]))[0])
    alone = streamed(guider=None, model=["model", 0], positive=["positive", 0], cfg=3.0)
    assert "negative: not linked, but cfg is 3" in error_of(run(alone)[0])


def test_a_model_that_is_shown_no_picture_is_refused(core, run):
    path = core / "models" / "diffusion_models" / NAMES["diffusion_models"]
    weights = {name: each for name, each in load_file(path).items() if "img" not in name}
    weights["patch_embedding.weight"] = weights["patch_embedding.weight"][:, :16].contiguous()
    save_file(weights, path.with_name("t2v.safetensors"))
    made = streamed()
    made["unet"]["inputs"]["unet_name"] = "core/t2v.safetensors"
    assert "Wan 2.1 I2V expected, found WAN21" in error_of(run(made)[0])


def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(core, installed, environment, host, run, video_of):
    made = streamed(1.0, filename_prefix="core_killed/video")
    with comfy_host.running(installed.source, installed.python, core, environment) as doomed:
        with doomed.listen() as listener, contextlib.suppress(OSError), doomed.hold("window 1/2 done"):
            doomed.queue(made, listener.client)
            listener.until_said("window 1/2 done")
            os.kill(doomed.pid, signal.SIGKILL)
    (partial,) = (core / "output" / "core_killed").glob("*.mp4")
    assert partial.name.endswith(".partial.mp4")
    entry, seen = run(made)
    assert "going on after window 1/2" in "\n".join(texts(seen))
    assert not any("window 1/2, step" in text for text in texts(seen))
    resumed = video_of(entry).read_bytes()
    video_of(entry).unlink()
    unbroken, seen = run(made)
    assert executed(seen) == ["sampler"] and any("window 1/2, step" in text for text in texts(seen))
    assert video_of(unbroken).read_bytes() == resumed


def test_cancel_keeps_the_windows_that_are_done(core, run, host):
    made = streamed(1.0, filename_prefix="core_cancelled/video")
    with host.listen() as listener, host.hold("window 2/2, step 1/2"):
        prompt = host.queue(made, listener.client)
        listener.until_said("window 2/2, step 1/2")
        host.post("/interrupt")
        host.go_on()
        seen = listener.until_end(prompt)
    assert seen[-1].type == "execution_interrupted"
    entry, seen = run(made)
    assert entry["status"]["status_str"] == "success" and "going on after window 1/2" in "\n".join(texts(seen))


def test_a_video_is_read_by_time(core, run, video_of):
    first, _ = run(streamed(filename_prefix="core/source"))
    shutil.copy(video_of(first), core / "input" / "person.mp4")
    video = node("LoadVideo", file="person.mp4")
    entry, _ = run(streamed(1.0, {"video": video}, image=None, video=["video", 0]))
    assert frames(video_of(entry)).shape == (25, 64, 64, 3)
    assert "image and video: both linked" in error_of(run(streamed(1.0, {"video": video}, video=["video", 0]))[0])


def test_the_bundled_workflow_runs(core, host):
    entry = host.run(small(json.loads((QUEUED / f"{WORKFLOW}.json").read_text(encoding="utf-8"))))
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"])[-3000:]
    (saved,) = [saved for output in entry["outputs"].values() for saved in output.get("images", [])]
    assert frames(host.base / "output" / saved["subfolder"] / saved["filename"]).shape == (29, 64, 64, 3)
    command = next(text for output in entry["outputs"].values() for text in output.get("text", []))
    assert "--noise comfy_counting" in command and "--pack comfy" in command


@pytest.mark.skipif(browser.find_browser() is None, reason="no Chromium or Chrome on the path")
def test_the_bundled_workflow_runs_from_the_page(core, host):
    """As a user does it: the template in the page, files chosen, queued, and the video in the node."""
    workflow = (WORKFLOWS / f"{WORKFLOW}.json").read_text(encoding="utf-8")
    chosen = {each["class_type"]: each["inputs"] for each in loaded(1.0).values()}
    chosen["InfiniteTalkCoreSampler"] = {**SMALL, "filename_prefix": "core/page"}
    with browser.browser() as page:
        page.open(host.url)
        page.wait(f"!!(window.app?.graph && app.extensionManager && LiteGraph.registered_node_types.{SAMPLER})", 300)
        page.run("app.extensionManager.setting.set('Comfy.Workflow.ShowMissingModelsWarning', false)")
        page.run(f"app.loadGraphData({workflow})")
        page.wait(f"app.graph.nodes.some((each) => each.type === '{SAMPLER}')")
        assert page.run("app.graph.nodes.filter((each) => !(each.type in LiteGraph.registered_node_types)).length") == 0
        page.run(f"({CHOOSE})({json.dumps(chosen)})")
        page.run("app.queuePrompt(0).then(() => true)")
        node = f"app.graph.nodes.find((each) => each.type === '{SAMPLER}')"
        shown = f"(app.nodeOutputs[String({node}.id)]?.images ?? [])[0]?.filename"
        name = page.wait(shown, 300)
        if PICTURES:
            page.run("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
            time.sleep(3)
            page.picture(Path(PICTURES) / "core_sampler.png")
    assert frames(host.base / "output" / "core" / name).shape == (29, 64, 64, 3)
