"""Every kind of file that is read: some to spoil, how it is read, and what the result must be, if there is any."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from random import Random

import av
import numpy as np
import torch
from infinitetalk.pipeline.checkpoints.files import Tensors, open_tensors
from infinitetalk.pipeline.commands.export import export
from infinitetalk.pipeline.commands.info import describe
from infinitetalk.pipeline.commands.inspect import describe as describe_weights
from infinitetalk.pipeline.commands.inspect import inspect
from infinitetalk.pipeline.export.command import command
from infinitetalk.pipeline.graphs.graph import read_graph
from infinitetalk.pipeline.graphs.places import FolderFiles, PortableFiles
from infinitetalk.pipeline.graphs.read import samplers, settings_of
from infinitetalk.pipeline.job.job import load_job
from infinitetalk.pipeline.job.output import check_unfinished, state_path
from infinitetalk.pipeline.job.record import read_record
from infinitetalk.pipeline.media.audio import open_audio
from infinitetalk.pipeline.media.reference import open_reference
from infinitetalk.pipeline.media.speech import speech_for_model
from infinitetalk.pipeline.media.writer import Written
from infinitetalk.pipeline.models.speech_encoder import load_speech_encoder
from infinitetalk.pipeline.models.text.cache import Embeddings, encode_prompts
from infinitetalk.pipeline.models.text.tokenizer import load_tokenizer
from infinitetalk.pipeline.models.transformer.files import open_transformer, transformer_config
from infinitetalk.pipeline.run.resume import RunState, load_state, save_state
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.tests.support import gguf_files, random_checkpoint, random_tokenizer
from infinitetalk.tests.support.places import DATA, WORKFLOWS
from PIL import Image
from safetensors.torch import save, save_file

from .mutations import spoilt_bytes, spoilt_json

LONGEST = 3600.0  # seconds of sound that a few kilobytes may claim to be
PIXELS = 200_000_000


class WrongError(Exception):
    """A spoilt file was read as something that it cannot be."""


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        seeds: whole files of it, made in a folder.
        read: reads a file that is spoilt, in a folder that is its own. Raises InputError where it is refused, and
            WrongError where the result is wrong.
        file: the name that it needs.
        spoil: how.
    """

    seeds: Callable[[Path], list[bytes]]
    read: Callable[[Path], None]
    file: str
    spoil: Callable[[Random, list[bytes]], bytes] = spoilt_bytes


def _check(right: bool, what: str) -> None:
    if not right:
        raise WrongError(what)


# Weights

_WEIGHTS = {
    "blocks.0.self_attn.q.weight": torch.linspace(-1, 1, 64 * 64).view(64, 64),
    "blocks.0.modulation": torch.linspace(-1, 1, 6 * 64).view(1, 6, 64),
    "patch_embedding.weight": torch.linspace(-1, 1, 64 * 8).view(64, 2, 1, 2, 2),
}


def _safetensors(folder: Path) -> list[bytes]:
    half = {name: tensor.half() for name, tensor in _WEIGHTS.items()}
    eight = {"w": torch.ones(8, 8).to(torch.float8_e4m3fn), "w.scale_weight": torch.ones(1), "n": torch.arange(3)}
    return [save(_WEIGHTS, {"format": "pt"}), save(half), save(eight), save({})]


def _pth(folder: Path) -> list[bytes]:
    found = []
    for tensors in (_WEIGHTS, {"state_dict": {"a": torch.arange(12.0).view(3, 4).t(), "b": torch.ones(2).bfloat16()}}):
        for zipped in (True, False):
            written = io.BytesIO()
            torch.save(tensors, written, _use_new_zipfile_serialization=zipped)
            found.append(written.getvalue())
    return found


def _gguf(folder: Path) -> list[bytes]:
    wide = {"blocks.0.ffn.0.weight": torch.linspace(-1, 1, 8 * 256).view(8, 256), **_WEIGHTS}
    for kind in ("Q8_0", "Q4_K", "F16"):
        gguf_files.write_gguf(folder / kind, wide, kind)
    return [(folder / kind).read_bytes() for kind in ("Q8_0", "Q4_K", "F16")]


def _read_weights(path: Path) -> None:
    describe_weights(inspect(path))
    tensors: Tensors = open_tensors(path, "weights")
    total = sum(np.prod(tensors.shape(name), dtype=float) for name in tensors)
    _check(total <= 64 * path.stat().st_size, f"{total} numbers")  # a tensor of torch.save may repeat one number
    for name in tensors:
        _check(tuple(tensors[name].shape) == tensors.shape(name), f"{name} has another shape")


# Sound


def _sound(codec: str, container: str, layout: str = "mono", rate: int = 16_000) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        written = io.BytesIO()
        samples = (np.sin(np.arange(rate // 3) * 0.05) * 9000).astype(np.int16)
        samples = np.repeat(samples, 1 + (layout == "stereo"))[None]
        with av.open(written, "w", format=container) as file:
            stream = file.add_stream(codec, rate=rate, layout=layout)
            frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
            frame.sample_rate = rate
            file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
        return written.getvalue()

    return make


_SOUNDS = {
    "wav": [_sound("pcm_s16le", "wav"), _sound("pcm_f32le", "wav", "stereo"), _sound("pcm_u8", "wav")],
    "compressed sound": [
        *[_sound("libmp3lame", "mp3"), _sound("flac", "flac", "stereo"), _sound("libopus", "ogg", rate=48_000)],
        *[_sound("aac", "adts"), _sound("aac", "matroska", "stereo"), _sound("pcm_s16be", "aiff")],
    ],
}


def _read_sound(path: Path) -> None:
    audio = open_audio(path)
    _check(audio.seconds <= LONGEST, f"{audio.seconds} s")
    blocks = [block.shape for block in audio.blocks()]
    _check(all(channels == audio.channels for channels, _ in blocks), "other channels than it says")
    _check(sum(count for _, count in blocks) == audio.num_samples, "another length the second time")
    if audio.seconds < 10:
        _check(bool(np.isfinite(speech_for_model(audio)).all()), "speech that is not finite")


# Pictures and videos


def _pictures(*kinds: str) -> Callable[[Path], list[bytes]]:
    def make(folder: Path) -> list[bytes]:
        found = []
        pixels = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6
        for kind in kinds:
            for mode in {"png": ("RGB", "P", "I;16", "RGBA"), "tiff": ("RGB", "F"), "jpeg": ("RGB", "CMYK")}.get(
                kind, ("RGB",)
            ):
                written = io.BytesIO()
                image = Image.fromarray(pixels)
                image = image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
                image.save(written, kind, **({"exif": exif} if kind in ("png", "jpeg", "webp") else {}))
                found.append(written.getvalue())
        return found

    return make


def _video(folder: Path) -> list[bytes]:
    found = []
    for codec, container in (("libx264", "mp4"), ("mjpeg", "avi"), ("libvpx-vp9", "webm"), ("mpeg4", "matroska")):
        written = io.BytesIO()
        with av.open(written, "w", format=container) as file:
            stream = file.add_stream(codec, rate=25)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            sound = file.add_stream("libopus" if container == "webm" else "aac", rate=48_000, layout="mono")
            for number in range(5):
                pixels = np.full((48, 64, 3), 50 * number, np.uint8)
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                file.mux(stream.encode(frame))
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.float32), format="fltp", layout="mono")
            tone.sample_rate = 48_000
            file.mux(sound.encode(tone))
            file.mux(stream.encode(None))
            file.mux(sound.encode(None))
        found.append(written.getvalue())
    return found


def _read_picture(path: Path) -> None:
    reference = open_reference(path)
    _check(0 < reference.width * reference.height <= PIXELS, f"{reference.width}x{reference.height}")
    for seconds in (0.1, 1e6, 0.0):
        index = reference.frame_index(seconds)
        frame = reference.frame(index)
        _check(frame.mode == "RGB" and reference.is_video or index == 0, f"frame {index}, {frame.mode}")


def _finished(folder: Path) -> list[bytes]:
    return [(DATA / "earlier" / name).read_bytes() for name in ("finished.mp4", "finished_in_comfyui.mp4")]


def _read_finished(path: Path) -> None:
    flags = {"shell": "sh", "full": False, "target": "ours", "comfyui": None, "node": None, "strict": False}
    flags |= {"pictures": None, "sounds": None}
    export(argparse.Namespace(file=path, **flags))
    describe(read_record(path), full=True)


# Texts

_JOB = {"prompt": "p", "cond_video": "me.png", "cond_audio": {"person1": "me.wav"}, "negative_prompt": "n"}


def _read_job(path: Path) -> None:
    for name in ("me.png", "me.wav"):
        (path.parent / name).touch()
    job = load_job(Settings(input_json=path))
    _check(isinstance(job.prompt, str) and isinstance(job.speech, Path), "values of other types")


def _graphs(folder: Path) -> list[bytes]:
    found = [*(DATA / "earlier" / "graphs").iterdir(), *(DATA / "graphs").iterdir(), *WORKFLOWS.glob("*.json")]
    return [path.read_bytes() for path in sorted(found) if path.suffix == ".json" and "without_later" not in path.name]


def _read_graph(path: Path) -> None:
    graph = read_graph(path)
    for node in samplers(graph)[:3]:
        for shell in ("sh", "powershell"):
            made = command(settings_of(graph, PortableFiles(), node.id), shell)
            _check(all(sign >= " " or sign in "\n\t" for sign in made.with_notes), "control characters in a command")


def _paths_yaml(folder: Path) -> list[bytes]:
    usual = "comfyui:\n  base_path: /models\n  is_default: true\n  loras: |\n    loras\n    more\n  vae: vae\n"
    return [usual.encode(), b"a: 1\nb: [a, {c: d}]\nc:\n  base_path: /x\n  loras: 'a'\n  vae: |\n"]


def _read_paths_yaml(path: Path) -> None:
    for folder in ("loras", "vae"):
        (path.parent / "models" / folder).mkdir(parents=True, exist_ok=True)
    (path.parent / "models" / "vae" / "a.safetensors").touch()
    FolderFiles(path.parent).preset_file("lora_dir", "a.safetensors")
    FolderFiles(path.parent).model("vae", "a.safetensors")


def _speech_config(folder: Path) -> list[bytes]:
    return [json.dumps(random_checkpoint.speech_encoder_config(random_checkpoint.TINY)).encode()]


def _read_speech_config(path: Path) -> None:
    weights = path.parent / "model.safetensors"
    if not weights.exists():
        save_file(random_checkpoint.speech_encoder_weights(random_checkpoint.TINY), weights)
    load_speech_encoder(path.parent, "meta")


def _transformer_config(folder: Path) -> list[bytes]:
    return [json.dumps(random_checkpoint.transformer_config(random_checkpoint.TINY)).encode()]


def _read_transformer_config(path: Path) -> None:
    weights = path.parent / "model.safetensors"
    if not weights.exists():
        tiny = random_checkpoint.TINY
        tensors = random_checkpoint.transformer_weights(tiny) | random_checkpoint.infinitetalk_weights(tiny)
        save_file(tensors, weights)
    transformer_config(open_transformer(weights, None))


def _tokenizers(ending: str) -> Callable[[Path], list[bytes]]:
    def make(folder: Path) -> list[bytes]:
        random_tokenizer.write_tokenizer(folder)
        return [path.read_bytes() for path in sorted(folder.iterdir()) if path.name.endswith(ending)]

    return make


def _read_tokenizer(path: Path) -> None:
    tokenizer = load_tokenizer(path)
    ids = tokenizer("A cat.")
    _check(all(0 <= each < tokenizer.vocab_size for each in ids), f"{ids} of {tokenizer.vocab_size}")


# What is written here

_STATE = RunState({"size": "64x64", "the prompt": "p"}, 2, Written(29, 1234, "ab" * 32), torch.rand(3, 5, 4, 4))
_EMBEDDING = torch.linspace(-1, 1, 21).view(3, 7).bfloat16()


def _states(folder: Path) -> list[bytes]:
    save_state(folder / "out.mp4", _STATE)
    return [state_path(folder / "out.mp4").read_bytes()]


def _read_state(path: Path) -> None:
    video = path.with_name("out.mp4")
    (path.with_name("out.partial.mp4")).touch()
    check_unfinished(video, Settings(resume=True))
    state = load_state(video)
    if state is not None:
        same = (state.identity, state.windows, state.written) == (_STATE.identity, _STATE.windows, _STATE.written)
        _check(same and torch.equal(state.motion, _STATE.motion), "another state")


class _Encoder:
    def encode(self, prompts: list[str]) -> list[torch.Tensor]:
        return [_EMBEDDING for _ in prompts]


def _encoded(folder: Path) -> torch.Tensor:
    return encode_prompts(["p"], _Encoder, "identity", folder, Embeddings(7, torch.bfloat16))[0]


def _embeddings(folder: Path) -> list[bytes]:
    _encoded(folder)
    return [path.read_bytes() for path in folder.glob("*.safetensors")]


def _read_embedding(path: Path) -> None:
    folder = path.parent / "cache"
    _encoded(folder)  # under whatever name
    (kept,) = folder.glob("*.safetensors")
    kept.write_bytes(path.read_bytes())
    _check(torch.equal(_encoded(folder), _EMBEDDING), "another embedding")


def _all(makers: list[Callable[[Path], bytes]]) -> Callable[[Path], list[bytes]]:
    return lambda folder: [make(folder) for make in makers]


KINDS = {
    "safetensors": Kind(_safetensors, _read_weights, "a.safetensors"),
    "pth": Kind(_pth, _read_weights, "a.pth"),
    "GGUF": Kind(_gguf, _read_weights, "a.gguf"),
    "wav": Kind(_all(_SOUNDS["wav"]), _read_sound, "a.wav"),
    "compressed sound": Kind(_all(_SOUNDS["compressed sound"]), _read_sound, "a.sound"),
    "PNG": Kind(_pictures("png"), _read_picture, "a.png"),
    "other pictures": Kind(_pictures("jpeg", "webp", "gif", "tiff", "bmp"), _read_picture, "a.jpg"),
    "video": Kind(_video, _read_picture, "a.mp4"),
    "sound of a video": Kind(_video, _read_sound, "a.mp4"),
    "finished video": Kind(_finished, _read_finished, "a.mp4"),
    "job": Kind(lambda folder: [json.dumps(_JOB).encode()], _read_job, "a.json", spoilt_json),
    "graph": Kind(_graphs, _read_graph, "a.json", spoilt_json),
    "extra_model_paths": Kind(_paths_yaml, _read_paths_yaml, "extra_model_paths.yaml"),
    "wav2vec2's config": Kind(_speech_config, _read_speech_config, "config.json", spoilt_json),
    "transformer's config": Kind(_transformer_config, _read_transformer_config, "config.json", spoilt_json),
    "tokenizer.json": Kind(_tokenizers("tokenizer.json"), _read_tokenizer, "tokenizer.json", spoilt_json),
    "spiece.model": Kind(_tokenizers(".model"), _read_tokenizer, "spiece.model"),
    "state": Kind(_states, _read_state, "out.partial.state"),
    "cached embedding": Kind(_embeddings, _read_embedding, "a.safetensors"),
}
