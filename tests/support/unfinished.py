"""A video of three windows, runs of it that end early, and what they leave, for the tests of resuming."""

import av
import numpy as np
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.run.progress import RunStarted, WindowDone
from infinitetalk.tests.golden.speech import save_wav

SMALL = {
    "device": "cpu",
    "size": "64x64",
    "frame_num": 17,
    "motion_frame": 5,
    "sample_steps": 2,
    "sample_text_guide_scale": 1.0,
}
WINDOWS = 3
FRAMES = 17 + (WINDOWS - 1) * 12


def write_speech(path, frames, seed=0):
    """Noise in bursts, as long as so many video frames."""
    noise = np.random.default_rng(seed).normal(size=640 * frames) * (np.arange(640 * frames) // 3000 % 2)
    save_wav(path, (noise[:, None] * 3000).astype(np.int16), 16_000)
    return path


def packets(path):
    with av.open(str(path)) as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(video=0) if packet.size]


def frames(path):
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def after_window(number, error):
    def listen(event):
        if isinstance(event, WindowDone) and event.index + 1 == number:
            raise error

    return listen


def after_start(event):
    if isinstance(event, RunStarted):
        raise KeyboardInterrupt


def resumed(generator):
    return generator.settings.replace(resume=True)


def cut(path, size):
    with path.open("r+b") as file:
        file.truncate(max(0, path.stat().st_size - size))


def run(argv, output, *flags):
    return main([*argv, "--quiet", "--save_file", str(output), *flags])


def assert_refused(capsys, *words):
    errors = capsys.readouterr().err
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    for word in words:
        assert word in errors


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
