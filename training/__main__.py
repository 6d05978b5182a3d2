"""``python -m infinitetalk.training STAGE ...``: one stage of the demo model's training, or several.

speech           renders speech.npz (needs espeak-ng; no card)
speech_encoder   wav2vec2                        30 s
reader           the network that measures       30 s
vae              the VAE                         300 s
transformer      latents, then the transformer   400 s
lora             four steps for twenty            150 s
decoder          the VAE's decoder alone, on the transformer's latents   420 s
two              the audio weights for two speakers, on top of the transformer's   330 s
disassemble      the stages' weights again, from the model in assets/, to go on from (no card)
assemble         the model set in the published file formats (no card)
measure          figures of the model in assets/, through the engine (long; no card)

A stage takes what those before it left in --out; --resume goes on from its own weights there. transformer
and lora in one call share the latents. decoder leaves encoder, transformer and LoRA as they are; it keeps
what it draws, so give it few people (27 MB of the card's memory each, for a moment twice).
"""

from __future__ import annotations

import argparse
import gc
import shutil
import time
from pathlib import Path

import torch

from . import speech

STAGES = (
    *("speech", "speech_encoder", "reader", "vae", "transformer", "lora", "decoder", "two"),
    *("disassemble", "assemble", "measure"),
)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m infinitetalk.training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stage", choices=STAGES, nargs="+")
    parser.add_argument("--data", type=Path, default=Path(".training"), help="folder of speech.npz")
    parser.add_argument("--out", type=Path, default=Path(".training"), help="folder of weights, reports and pictures")
    parser.add_argument("--seconds", type=float, default=60, help="time for the stage, preparations included")
    parser.add_argument("--prepare_seconds", type=float, default=90, help="most time for the transformer's latents")
    parser.add_argument("--lora_seconds", type=float, default=200, help="for lora, where the latents are there already")
    parser.add_argument("--first", type=int, default=0, help="number of the transformer's first person")
    parser.add_argument("--people", type=int, default=1600, help="most people for the transformer")
    parser.add_argument("--clips", type=int, default=1400, help="clips for the VAE; of speech, for the stage speech")
    parser.add_argument("--batch", type=int, default=24, help="of the transformer")
    parser.add_argument("--pairs", type=int, default=12, help="pairs of people in a batch of the stage two")
    parser.add_argument("--decoder_batch", type=int, default=2, help="clips of the decoder's steps")
    parser.add_argument("--resume", action="store_true", help="go on from the stage's own weights")
    parser.add_argument("--no_graph", action="store_true", help="no CUDA graphs")
    parser.add_argument("--no_compile", action="store_true", help="no torch.compile")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 4
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    run = {
        "speech": lambda a: speech.render(a.data / "speech.npz", a.clips),
        "speech_encoder": _speech_encoder,
        "reader": _reader,
        "vae": _vae,
        "transformer": _transformer,
        "lora": _lora,
        "decoder": _decoder,
        "two": _two,
        "disassemble": _disassemble,
        "assemble": _assemble,
        "measure": _measure,
    }
    arguments.ready = None
    for stage in arguments.stage:
        started = time.monotonic()
        run[stage](arguments)
        print(f"{stage}: {time.monotonic() - started:.0f} s in all", flush=True)
        gc.collect()  # a graph's memory is only given back with the graph


def _sounds(a: argparse.Namespace, part: str) -> torch.Tensor:
    return torch.from_numpy(speech.load(a.data / "speech.npz", part)).to(a.device)


def _resumed(a: argparse.Namespace, file: str) -> Path | None:
    return a.out / file if a.resume else None


def _speech_encoder(a: argparse.Namespace) -> None:
    from . import speech_encoder

    speech_encoder.train(_sounds(a, "train"), _sounds(a, "held_out"), a.out, a.seconds, not a.no_graph)


def _reader(a: argparse.Namespace) -> None:
    from . import reader

    reader.train(torch.device(a.device), a.out, a.seconds, not a.no_graph)


def _vae(a: argparse.Namespace) -> None:
    from . import vae

    vae.train(_sounds(a, "train"), a.out, a.seconds, _resumed(a, vae.FILE), a.clips, not a.no_graph)


class _Prepared:
    """What transformer and LoRA learn from and are looked at with."""

    def __init__(self, a: argparse.Namespace, keep_frames: bool = False, turns: bool = False) -> None:
        from ..pipeline.evaluation.reader import load_reader
        from . import frozen, generating, latents, reader, speech_encoder, two, vae
        from .clips import Drawer
        from .prompts import ASIDE, CALM, SAD, SMILING, SURPRISED
        from .vae_network import Whole

        started, device = time.monotonic(), torch.device(a.device)
        cuda = device.type == "cuda"
        trained = vae.load(a.out / vae.FILE, device).requires_grad_(False)
        self.whole = Whole(trained, torch.bfloat16 if cuda else torch.float32, fused=cuda)
        hearing = self.hearing = speech_encoder.load(a.out / speech_encoder.FILE, device)
        if not (a.out / "frozen").is_dir():
            frozen.write(a.out / "frozen")
        reading, sight = frozen.load(a.out / "frozen", device)
        self.reader = load_reader(a.out / reader.FILE)[0].to(device)
        self.texts = latents.encode_texts(reading)
        print(f"texts ready at {time.monotonic() - started:.0f} s", flush=True)
        new = _sounds(a, "held_out")
        moods = [CALM, SMILING, SAD, SURPRISED, ASIDE] * 2
        self.trials = {
            "speech": generating.make_trial(8, new, self.whole, hearing, sight, reading),
            "moods": generating.make_trial(10, new, self.whole, hearing, sight, reading, moods),
        }
        sounds = two.with_turns(_sounds(a, "train")) if turns else _sounds(a, "train")
        self.data = latents.build(
            a.first,
            a.people,
            sounds,
            self.whole,
            hearing,
            sight,
            lambda: time.monotonic() - started < a.prepare_seconds,
            Drawer(cuda and not a.no_compile),
            cuda and not a.no_graph,
            keep_frames=keep_frames,
        )
        self.seconds_left = a.seconds - (time.monotonic() - started)


def _transformer(a: argparse.Namespace) -> None:
    from . import transformer

    ready = a.ready = _Prepared(a)
    transformer.train(
        ready.data,
        ready.texts,
        a.out,
        ready.seconds_left,
        ready.whole,
        ready.reader,
        ready.trials,
        _resumed(a, transformer.FILE),
        a.batch,
        not a.no_graph,
        not a.no_compile,
    )


def _lora(a: argparse.Namespace) -> None:
    from . import lora, transformer
    from .transformer_network import CONFIG, Network

    ready, seconds = a.ready, a.lora_seconds
    if ready is None:
        ready = _Prepared(a)
        seconds = ready.seconds_left
    parameters = _transformer_weights(a)
    dtype = torch.bfloat16 if a.device == "cuda" else torch.float32

    def look(parameters: dict[str, torch.Tensor], name: str) -> None:
        network = Network(CONFIG, parameters, dtype)
        transformer.look(network, ready.whole, ready.reader, {"speech": ready.trials["speech"]}, a.out, name)

    sampler = transformer.Sampler(ready.data, ready.texts, a.batch, drop=False)
    lora.train(parameters, sampler, a.out, seconds, look, graph=not a.no_graph, compile_blocks=not a.no_compile)


def _transformer_weights(a: argparse.Namespace) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    from . import transformer

    weights = load_file(a.out / transformer.FILE)
    return {name: tensor.to(a.device, torch.float32) for name, tensor in weights.items()}


def _decoder(a: argparse.Namespace) -> None:
    from . import decoder, lora, transformer

    a.ready = None  # its data has no frames
    ready, parameters = _Prepared(a, keep_frames=True), _transformer_weights(a)
    decoder.train(
        transformer.Sampler(ready.data, ready.texts, a.decoder_batch, drop=False, spoil=False),
        parameters,
        lora.with_file(parameters, a.out / lora.FILE),
        ready.trials["speech"],
        ready.reader,
        a.out,
        ready.seconds_left,
        not a.no_graph,
    )


def _two(a: argparse.Namespace) -> None:
    from . import two

    a.ready = None  # its people take no turns
    ready = _Prepared(a, turns=True)
    two.train(
        ready.data,
        ready.texts,
        a.first,
        a.out,
        ready.seconds_left,
        ready.whole,
        ready.reader,
        (ready.trials["speech"], ready.hearing),
        a.pairs,
        not a.no_graph,
        not a.no_compile,
    )


def _disassemble(a: argparse.Namespace) -> None:
    from ..pipeline.settings.demo import FOLDER
    from . import assemble

    assemble.read_back(FOLDER, a.out)


def _assemble(a: argparse.Namespace) -> None:
    from . import assemble

    folder = a.out / "demo_model"
    if folder.exists():
        shutil.rmtree(folder)
    assemble.write(a.out, folder)


def _measure(a: argparse.Namespace) -> None:
    from . import measuring

    measuring.run(speech.load(a.data / "speech.npz", "held_out"), a.out, long_windows=10)


if __name__ == "__main__":
    main()
