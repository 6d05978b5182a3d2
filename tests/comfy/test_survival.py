"""What a shared server goes through: it is killed, other models come before and after, memory is wanted back."""

import contextlib
import dataclasses
import os
import re
import shutil
import signal
from pathlib import Path

import av
import pytest
from infinitetalk.tests.support import comfy_host, lora_files, random_checkpoint
from infinitetalk.tests.support.comfy_graphs import SIZES, executed, node, texts
from safetensors.torch import save_file

MIB = 2**20
LARGE = dataclasses.replace(SIZES, dim=1024, heads=8, ffn=4096, layers=2)


@pytest.mark.long
def test_a_killed_server_goes_on_after_the_last_window(installed, base, environment, host, run, graph, video_of):
    """One server is killed in window 2 by the system; the next one on the same folder is asked the same."""
    made = graph(base_seed=30, filename_prefix="killed/video")
    with comfy_host.running(installed.source, installed.python, base, environment) as doomed:
        assert doomed.pid != host.pid
        with doomed.listen() as listener, contextlib.suppress(OSError), doomed.hold("window 1/2 done"):
            doomed.queue(made, listener.client)
            listener.until_said("window 1/2 done")
            os.kill(doomed.pid, signal.SIGKILL)
    (partial,) = (base / "output" / "killed").glob("*.mp4")
    assert partial.name.endswith(".partial.mp4")
    entry, seen = run(made)
    assert "going on after window 1/2" in "\n".join(texts(seen))
    assert not any("window 1/2, step" in text for text in texts(seen))
    assert video_of(entry).name == partial.name.replace(".partial", "") and not partial.exists()
    resumed = video_of(entry).read_bytes()
    video_of(entry).unlink()
    unbroken, seen = run(made)
    assert any("window 1/2, step" in text for text in texts(seen))
    assert video_of(unbroken).read_bytes() == resumed


def frames(path):
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in video.decode(video=0)]


@pytest.fixture
def core(base):
    """Core nodes around a model of their own: a picture through ComfyUI's Wan VAE and back."""
    folder = base / "models" / "vae"
    folder.mkdir(exist_ok=True)
    save_file(random_checkpoint.vae_weights(SIZES), folder / "neighbour.safetensors")

    def make(picture="portrait.png"):
        return {
            "picture": node("LoadImage", image=picture),
            "scaled": node(
                "ImageScale", image=["picture", 0], upscale_method="bilinear", width=64, height=64, crop="center"
            ),
            "vae": node("VAELoader", vae_name="neighbour.safetensors"),
            "encoded": node("VAEEncode", pixels=["scaled", 0], vae=["vae", 0]),
            "decoded": node("VAEDecode", samples=["encoded", 0], vae=["vae", 0]),
            "saved": node("SaveImage", images=["decoded", 0], filename_prefix="neighbour"),
        }

    return make


def pixels_of(host, entry):
    """Pixels of the picture that the core nodes have saved."""
    assert entry["status"]["status_str"] == "success", entry["status"]
    (saved,) = entry["outputs"]["saved"]["images"]
    with av.open(str(host.base / "output" / saved["subfolder"] / saved["filename"])) as picture:
        return next(picture.decode(video=0)).to_ndarray(format="rgb24")


def test_other_models_before_and_after_are_as_without_ours(host, run, graph, core, video_of):
    alone, _ = run(graph(base_seed=31))
    video = frames(video_of(alone))
    video_of(alone).unlink()
    host.free()
    entry, _ = run(core())
    before = pixels_of(host, entry)
    assert before.std() > 5  # a picture
    between, seen = run(graph(base_seed=31, nodes=core()))  # whose model stays loaded meanwhile
    assert "vae" not in executed(seen) and "sampler" in executed(seen)
    assert frames(video_of(between)) == video != []
    shutil.copy(host.base / "input" / "portrait.png", host.base / "input" / "again.png")
    entry, seen = run(core("again.png"))
    assert "vae" not in executed(seen) and {"encoded", "decoded"} <= set(executed(seen))  # the same model computes
    assert (pixels_of(host, entry) == before).all()


def resident(host):
    """Bytes of the server's memory: its own, and those of mapped files."""
    status = Path(f"/proc/{host.pid}/status").read_text()
    return tuple(
        1024 * int(re.search(rf"^{kind}:\s+(\d+) kB", status, re.MULTILINE)[1]) for kind in ("RssAnon", "RssFile")
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc to read the memory in")
def test_memory_comes_back_after_an_interrupt(host, run, graph, base, tmp_path):
    paths = random_checkpoint.write(tmp_path, LARGE)
    models = base / "models" / "diffusion_models"
    shutil.move(paths.ckpt_dir, models / "Large")
    shutil.move(paths.infinitetalk, models / "large.safetensors")
    save_file(lora_files.lightx2v_i2v(LARGE), base / "models" / "loras" / "large.safetensors")
    weights = sum(file.stat().st_size for file in (models / "Large").glob("*.safetensors"))
    run(graph(base_seed=32))  # what is loaded but once is not the large model's
    host.free()
    before = resident(host)
    large = {"dit_path": "Large", "infinitetalk_dir": "large.safetensors"}
    made = graph(**large, base_seed=33)
    made["lora"] = node("InfiniteTalkLoRA", lora="large.safetensors", scale=1.0)  # merged, so weights are copies
    made["model"]["inputs"]["lora"] = ["lora", 0]
    with host.listen() as listener, host.hold("window 1/2, step 2/2"):
        prompt = host.queue(made, listener.client)
        listener.until_said("window 1/2, step 2/2")
        running = resident(host)
        host.post("/interrupt")
        host.go_on()
        assert listener.until_end(prompt)[-1].type == "execution_interrupted"
    host.free()
    left = resident(host)
    figures = f"of {weights / MIB:.0f} MiB of weights: {[f'{value / MIB:.0f}' for value in (*before, *running, *left)]}"
    assert weights > 150 * MIB and running[0] - before[0] > 0.9 * weights, figures
    assert left[0] - before[0] < 0.25 * weights and left[1] - before[1] < 0.1 * weights, figures
