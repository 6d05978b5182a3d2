"""Hashes of the frames of small videos, to see that two versions of the program make the same ones.

    python scripts/frame_hashes.py > before.txt
    python scripts/frame_hashes.py --checkout ../other > after.txt      # then: diff before.txt after.txt

Every case is a run of the checkout's own command line, in a process of its own, on the bundled small model. With
``--comfyui`` the exported graph is queued on a ComfyUI server as well, with the checkout as its custom node. A line of
the output has the case's name, how many frames its video has, and the SHA-256 of all of them, decoded to RGB, in order.
Lines are comparable where processor, PyTorch and PyAV are the same. Knows the program by its flags and files alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

PROGRAM = "python generate_infinitetalk.py"  # as exported commands begin
SECONDS = 300  # for anything that is waited for
DEMO_MODEL = {
    "ckpt_dir": "assets/demo_model/Wan2.1-I2V-14B-480P",
    "infinitetalk_dir": "assets/demo_model/InfiniteTalk/single/infinitetalk.safetensors",
    "wav2vec_dir": "assets/demo_model/chinese-wav2vec2-base",
}
DEMO_LORA = "assets/demo_model/demo_lora_4_steps.safetensors"
PROMPT = "A woman is talking to the camera."
MADE_FROM = {"image": "assets/drawn_portrait.png", "audio": "assets/speech.wav", "prompt": PROMPT}
DEMO = {  # the flags of "make demo"
    **DEMO_MODEL,
    **{"lora_dir": DEMO_LORA, "lora_scale": 1},
    **MADE_FROM,
    **{"size": "192x192", "sample_steps": 4, "sample_shift": 5},
    **{"sample_text_guide_scale": 1, "sample_audio_guide_scale": 1, "seam_frames": 4},
}
SMALL = {  # two windows of few steps, lossless
    **DEMO_MODEL,
    **MADE_FROM,
    **{"frame_num": 17, "motion_frame": 5, "max_frame_num": 29},
    **{"sample_steps": 2, "sample_shift": 5, "sample_text_guide_scale": 1, "sample_audio_guide_scale": 1},
    **{"base_seed": 7, "crf": 0},
}
LOADER = {
    **{"dit_path": "demo (bundled)", "infinitetalk_dir": "demo (bundled)"},
    **{"text_encoder": "none", "clip_vision": "none", "vae": "none", "tokenizer": "none"},
    **{"quant": "none", "quant_dir": "none", "quant_matmul": "auto", "lora_mode": "auto"},
    **{"lora_ignore_unmatched": False, "dtype": "auto", "attention": "auto", "kernels": "auto"},
    **{"offload_model": "auto", "t5_cpu": False, "blocks_to_swap": -1, "num_persistent_param_in_dit": -1},
    **{"vae_dtype": "auto", "vram_limit": 0},
}
SAMPLER = {
    **{"prompt": PROMPT, "negative_prompt": "blurred", "size": "64x64", "mode": "streaming"},
    **{"frame_num": 17, "motion_frame": 5, "max_frame_num": 29, "color_correction_strength": 0.5},
    **{"sample_steps": 2, "sample_shift": 5.0, "sample_solver": "euler"},
    **{"sample_text_guide_scale": 1.0, "sample_audio_guide_scale": 2.0, "base_seed": 7, "use_apg": False},
    **{"apg_momentum": -0.75, "apg_norm_threshold": 55.0, "use_teacache": False, "teacache_thresh": 0.2},
    **{"crf": 0, "filename_prefix": "video/hashed", "sample_audio_guide_steps": 0, "seam_frames": 4},
}


class Failed(Exception):
    """A case could not be run; says why."""


@dataclass(frozen=True)
class Place:
    """Where a case runs.

    Attributes:
        checkout: the version that is looked at.
        folder: of this case, empty.
        environment: of all processes.
        comfyui, comfyui_python: a ComfyUI's folder and its interpreter, where one is given.
        working: the folder that commands run in.
    """

    checkout: Path
    folder: Path
    environment: dict[str, str]
    comfyui: Path | None
    comfyui_python: Path
    working: Path

    def words(self, *words: str) -> list[str]:
        """A call of the command line."""
        return [sys.executable, str(self.checkout / "generate_infinitetalk.py"), *words]

    def run(self, *words: str) -> str:
        """What the command prints.

        Raises:
            Failed: it does not end well.
        """
        return self.printed(self.words(*words), self.working)

    def ended(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        """The command after its end, be it good or bad."""
        return self._process(self.words(*words), self.working)

    def printed(self, command: list[str], folder: Path) -> str:
        """What any command prints, run in a folder."""
        done = self._process(command, folder)
        if done.returncode:
            raise Failed(f"{shlex.join(command)}\n{done.stderr[-3000:]}")
        return done.stdout

    def make(self, settings: dict[str, object], *more: str) -> Path:
        """The video of these settings."""
        path = self.folder / "video.mp4"
        self.run(*flags({**settings, "save_file": path}), *more)
        return path

    def _process(self, command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, cwd=folder, env=self.environment, capture_output=True, text=True, encoding="utf-8", check=False
        )


def process_environment(cache: Path) -> dict[str, str]:
    """Variables for all processes: one thread, no card, a text cache of their own."""
    ours = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONUTF8": "1", "INFINITETALK_CACHE": str(cache)}
    return {**os.environ, **ours}


def flags(settings: dict[str, object]) -> list[str]:
    """Settings as flags, on the CPU; True is a switch."""
    given = {"device": "cpu", **settings}
    return [f"--{name}" if value is True else f"--{name}={value}" for name, value in given.items()]


def hash_of(path: Path) -> tuple[int, str]:
    """How many frames a video has, and the SHA-256 of them."""
    digest, count = hashlib.sha256(), 0
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            digest.update(frame.to_ndarray(format="rgb24").tobytes())
            count += 1
    return count, digest.hexdigest()


# Cases


def demo(place: Place) -> Path:
    """What ``make demo`` makes."""
    return place.make(DEMO)


def lora_fp8(place: Place) -> Path:
    """A LoRA fused into matrices that are then kept in fp8, and the solver for such LoRAs."""
    given = {"lora_dir": DEMO_LORA, "lora_scale": 0.8, "quant": "fp8"}
    return place.make({**SMALL, **given, "sample_solver": "flowmatch_distill", "sample_steps": 4, "size": "64x64"})


def converted(place: Place) -> Path:
    """A transformer in int8 that ``convert`` wrote, a LoRA beside it; not all blocks kept, in bf16, another solver."""
    file = place.folder / "converted.safetensors"
    weights = {name: DEMO_MODEL[name] for name in ("ckpt_dir", "infinitetalk_dir")}
    place.run("convert", *flags({**weights, "quant": "int8", "save_file": file}))
    given = {"quant": "int8", "quant_dir": file, "lora_dir": DEMO_LORA, "lora_scale": 0.8, "lora_mode": "side"}
    given |= {"blocks_to_swap": 2, "offload_model": True, "dtype": "bf16", "sample_solver": "unipc", "sample_steps": 3}
    return place.make({**SMALL, **given, "size": "64x64"})


def dubbed(place: Place) -> Path:
    """A video for reference, at another rate and of another shape, its colours followed halfway."""
    return place.make(_dubbed(place))


def resumed(place: Place) -> Path:
    """The same, killed after its first window and gone on with."""
    settings, path = _dubbed(place), place.folder / "video.mp4"
    kill_after_first_window(place, flags({**settings, "save_file": path}), path)
    return place.make(settings, "--resume")


def _dubbed(place: Place) -> dict[str, object]:
    drawn = place.folder / "drawn.mp4"
    _draw_video(drawn)
    settings = {name: value for name, value in SMALL.items() if name != "image"}
    more = {"color_correction_strength": 0.5, "seam_frames": 4, "max_frame_num": 53}
    return {**settings, "video": drawn, "size": "64x96", **more}


def guided(place: Place) -> Path:
    """Three passes with adaptive projection; TeaCache acts; the speech guides some steps only."""
    given: dict[str, float] = {
        "sample_text_guide_scale": 3,
        "sample_audio_guide_scale": 2,
        "sample_audio_guide_steps": 7,
    }
    given |= {"use_apg": True, "use_teacache": True, "teacache_thresh": 0.5, "sample_steps": 9}
    return place.make({**SMALL, **given, "size": "64x64", "max_frame_num": 17, "negative_prompt": "blurred"})


def kill_after_first_window(place: Place, words: list[str], path: Path) -> None:
    """Begin the video ``path`` and end the process as soon as a window is kept.

    Raises:
        Failed: it ended by itself.
    """
    state, log = (path.with_name(f"{path.stem}{ending}") for ending in (".partial.state", ".log"))
    with log.open("wb") as said:
        process = subprocess.Popen(
            place.words(*words), cwd=place.working, env=place.environment, stdout=said, stderr=said
        )
    try:
        _wait(state.exists, lambda: process.poll() is None, f"{state.name} of {path.name}")
    except Failed as failed:
        raise Failed(f"{failed}\n{log.read_text(errors='replace')[-3000:]}") from failed
    finally:
        process.kill()
        process.wait()
    if path.exists():
        raise Failed(f"{path.name} was finished before its run could be ended")


def exported(place: Place) -> Path:
    """A graph as a command, which a shell runs."""
    base = _comfyui_folder(place)
    graph = place.folder / "graph.json"
    graph.write_text(json.dumps(graph_of_small_model()), encoding="utf-8")
    text = place.run("export", str(graph), "--shell", "sh", "--comfyui", str(base))
    if PROGRAM not in text:
        raise Failed(f"the exported command does not begin with {PROGRAM}:\n{text}")
    text = text.replace(PROGRAM, shlex.join(place.words()), 1)
    made = place.printed(["sh", "-c", text], place.folder).strip()
    return place.folder / made


def comfyui(place: Place) -> Path:
    """The same graph, queued on a server."""
    return queued(place, graph_of_small_model())


def queued(place: Place, graph: dict[str, dict]) -> Path:
    """The video that a ComfyUI server makes of a graph, in its folder output/video.

    Raises:
        Failed: it does not start, take the graph, or end well.
    """
    base = _comfyui_folder(place)
    (base / "custom_nodes" / "InfiniteTalk").symlink_to(place.checkout, target_is_directory=True)
    with _server(place, base) as url:
        answer = _ask(f"{url}/prompt", {"prompt": graph})
        history = f"{url}/history/{answer['prompt_id']}"
        _wait(lambda: _ask(history), lambda: True, "the end of the graph")
        entry = _ask(history)[answer["prompt_id"]]
    if entry["status"]["status_str"] != "success":
        raise Failed(json.dumps(entry["status"])[-3000:])
    (saved,) = entry["outputs"]["sampler"]["images"]
    return base / "output" / saved["subfolder"] / saved["filename"]


ON_COMFYUI = "comfyui"
CASES: dict[str, Callable[[Place], Path]] = {
    **{"demo": demo, "lora_fp8": lora_fp8, "converted": converted, "dubbed": dubbed, "resumed": resumed},
    **{"guided": guided, "exported": exported, ON_COMFYUI: comfyui},
}
SAME = (("dubbed", "resumed"), ("exported", ON_COMFYUI))  # cases that must agree within one version


# Parts


def _draw_video(path: Path) -> None:
    """One second of a face-like disc that moves, 24 frames a second."""
    random = np.random.default_rng(5)
    rows, columns = np.mgrid[:96, :128]
    background = random.integers(40, 90, 3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"threads": "1", "crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(24):
            x, y = 64 + 12 * np.sin(index / 4), 48 + 5 * np.cos(index / 3)
            disc = (columns - x) ** 2 / 1.2 + (rows - y) ** 2 < 30**2
            mouth = (columns - x) ** 2 / 4 + (rows - y - 14) ** 2 < (3 + index % 4) ** 2
            pixels = np.where(disc[..., None], (224, 180, 150), background).astype(np.uint8)
            pixels[mouth] = (130, 40, 50)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def _node(kind: str, **inputs: object) -> dict:
    return {"class_type": kind, "inputs": inputs}


def graph_of_small_model() -> dict[str, dict]:
    """A graph of the pack's nodes in API format: picture, speech, small model with a chain of LoRAs, sampler."""
    lora = Path(DEMO_LORA).name
    return {
        "image": _node("LoadImage", image="portrait.png"),
        "audio": _node("LoadAudio", audio="speech.wav"),
        "speech": _node("InfiniteTalkAudioEncoder", audio=["audio", 0], wav2vec_dir="demo (bundled)"),
        "first": _node("InfiniteTalkLoRA", lora=lora, scale=0.7),
        "second": _node("InfiniteTalkLoRA", lora=lora, scale=-0.2, previous=["first", 0]),
        "model": _node("InfiniteTalkModelLoader", **LOADER, lora=["second", 0]),
        "sampler": _node(
            "InfiniteTalkSampler", model=["model", 0], speech=["speech", 0], image=["image", 0], **SAMPLER
        ),
    }


def _comfyui_folder(place: Place) -> Path:
    """A base directory of ComfyUI that has what the graph names."""
    base = place.folder / "comfyui"
    for name in ("models/loras", "input", "output", "temp", "user", "custom_nodes"):
        (base / name).mkdir(parents=True)
    shutil.copy(place.checkout / DEMO_LORA, base / "models" / "loras")
    shutil.copy(place.checkout / MADE_FROM["image"], base / "input" / "portrait.png")
    shutil.copy(place.checkout / MADE_FROM["audio"], base / "input" / "speech.wav")
    return base


@contextmanager
def _server(place: Place, base: Path) -> Iterator[str]:
    """A ComfyUI server while the context lasts; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(place.comfyui_python), "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port)]
    command += ["--base-directory", str(base), "--disable-auto-launch", "--disable-api-nodes"]
    command += ["--database-url", "sqlite:///:memory:"]
    url, log = f"http://127.0.0.1:{port}", base / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=place.comfyui, env=place.environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        _wait(lambda: _ask(f"{url}/system_stats"), lambda: process.poll() is None, "ComfyUI's start")
        yield url
    except Failed as failed:
        raise Failed(f"{failed}\n{log.read_text(errors='replace')[-3000:]}") from failed
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ask(url: str, content: object = None) -> dict:
    """The server's answer; empty where nobody answers yet."""
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as error:
        raise Failed(f"{url}: {error.read().decode(errors='replace')[:3000]}") from error
    except OSError:
        return {}


def _wait(reached: Callable[[], object], alive: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + SECONDS
    while not reached():
        if not alive() or time.monotonic() > until:
            raise Failed(f"{what} did not come")
        time.sleep(0.02)


# The command


def main() -> int:
    """Run the cases that are asked for; 0 if all of them ran and those that must agree do."""
    given = _arguments()
    names = given.only or [name for name in CASES if name != ON_COMFYUI or given.comfyui]
    found: dict[str, tuple[int, str]] = {}
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        environment = process_environment(Path(temporary, "cache"))
        checkout = given.checkout.resolve()
        for name in names:
            folder = Path(temporary, name)
            folder.mkdir()
            place = Place(checkout, folder, environment, given.comfyui, given.comfyui_python, checkout)
            begin = time.monotonic()
            try:
                found[name] = hash_of(CASES[name](place))
            except Failed as error:
                failed = True
                sys.stderr.write(f"{name}: {error}\n")
                continue
            sys.stdout.write(f"{name:10} {found[name][0]:4} frames  {found[name][1]}\n")
            sys.stdout.flush()
            sys.stderr.write(f"{name}: {time.monotonic() - begin:.1f} s\n")
    for one, other in SAME:
        if one in found and other in found and found[one] != found[other]:
            failed = True
            sys.stderr.write(f"{one} and {other} must have the same frames, and do not\n")
    return int(failed)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    here = Path(__file__).resolve().parent.parent
    parser.add_argument("--checkout", type=Path, default=here, metavar="DIR", help="the version (default: this one)")
    parser.add_argument("--comfyui", type=_folder, metavar="DIR", help="folder of ComfyUI's main.py")
    parser.add_argument(
        "--comfyui-python",
        type=_absolute,
        default=Path(sys.executable),
        metavar="PY",
        help="what runs it (default: this)",
    )
    parser.add_argument("--only", nargs="+", choices=CASES, metavar="NAME", help=f"of {', '.join(CASES)}")
    given = parser.parse_args()
    if given.only and ON_COMFYUI in given.only and given.comfyui is None:
        parser.error(f"{ON_COMFYUI} needs --comfyui DIR")
    return given


def _absolute(text: str) -> Path:
    return Path(text).absolute()  # not resolved: a link to an interpreter is another environment


def _folder(text: str) -> Path:
    if not Path(text, "main.py").is_file():
        raise argparse.ArgumentTypeError(f"{text} has no main.py")
    return Path(text).absolute()


if __name__ == "__main__":
    sys.exit(main())
