"""Standard streams that are closed, broken or full: a sentence or a quiet end, and videos are finished all the same."""

import gc
import os
import subprocess
import sys

import av
import pytest
from infinitetalk.pipeline.commands.console import Messages
from infinitetalk.pipeline.commands.main import main
from infinitetalk.tests.support.places import PORTRAIT, ROOT

EARLIER = ROOT / "tests" / "data" / "earlier"
CRASHED = 99
STREAMS = {"stdin": 0, "stdout": 1, "stderr": 2}

COMMANDS = {
    "version": (["--version"], 0),
    "overview": ([], 0),
    "help": (["generate", "--help"], 0),
    "presets": (["presets"], 0),
    "recommend": (["recommend", "--goal", "balance"], 0),
    "recommend, asking": (["recommend"], 2),
    "info": (["info", str(EARLIER / "finished.mp4")], 0),
    "export": (["export", str(EARLIER / "finished.mp4")], 0),
    "inspect": (["inspect", str(ROOT / "assets" / "demo_model" / "demo_lora_4_steps.safetensors")], 0),
    "a slip": (["nonsense"], 2),
    "no file": (["info", "nowhere.mp4"], 2),
}
SPOILT = [
    *[("stdout", how) for how in ("closed", "broken", "full")],
    *[("stderr", how) for how in ("closed", "broken", "full")],
    ("stdin", "closed"),
    ("all", "closed"),
]


def spoil(name, how):
    """Make a stream of this process unusable, as a shell does before it starts a program."""
    if how == "closed":
        os.close(STREAMS[name])
        setattr(sys, name, None)  # as Python does then
        return
    if how == "full":
        end = os.open("/dev/full", os.O_WRONLY)
    else:
        unread, end = os.pipe()
        os.close(unread)
    os.dup2(end, STREAMS[name])
    os.close(end)
    setattr(sys, name, os.fdopen(STREAMS[name], "w", closefd=False))


def run(argv, streams, folder):
    """What a shell would run with these streams spoilt, in this process; the others go to files."""
    for name in ("stdout", "stderr"):
        file = (folder / name).open("w")
        os.dup2(file.fileno(), STREAMS[name])
        setattr(sys, name, os.fdopen(STREAMS[name], "w", closefd=False))
    for name, how in streams:
        spoil(name, how)
    code = main(argv)
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()  # as Python does at its end, which says so and ends with 120 where that fails
    return code


def ends(argv, stream, how, folder):
    """Exit code, stdout and stderr, of a process of its own that need not import everything again."""
    names = STREAMS if stream == "all" else [stream]
    child = os.fork()
    if child == 0:
        code = CRASHED
        gc.freeze()  # what others left, whose threads are not in this process, is not closed here
        try:
            code = run(argv, [(name, how) for name in names], folder)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, (folder / "stdout").read_text(), (folder / "stderr").read_text()


ALL_WAYS = ("presets", "a slip", "recommend, asking")  # the others write in the same way


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_ends_quietly_or_with_a_sentence(tmp_path, name):
    argv, usual = COMMANDS[name]
    for stream, how in SPOILT if name in ALL_WAYS else [("stdout", "full"), ("all", "closed")]:
        code, out, err = ends(argv, stream, how, tmp_path)
        unwritten = stream == "stdout" and how == "full" and usual == 0
        assert code == (2 if unwritten else usual), (stream, how, err)
        assert "Traceback" not in err and "Exception" not in err
        if unwritten:
            words = "the result cannot be written to standard output (No space left on device).\n"
            assert err in (f"error: {words}", f"error: {(*argv, '')[0]}: {words}")
        elif stream not in ("stderr", "all"):
            assert err.startswith("error: ") == (usual != 0) and err.count("\n") <= 1
        assert bool(out) == (usual == 0 and stream not in ("stdout", "all")), (stream, how)


@pytest.mark.parametrize(
    ("word", "redirection", "code"),
    [("presets", ">/dev/full", 2), ("presets", ">&- <&-", 0), ("nonsense", "2>/dev/full", 2), ("nonsense", "2>&-", 2)],
)
def test_pythons_own_end_is_quiet_too(word, redirection, code):
    """As a shell starts it."""
    words = ["sh", "-c", f'"$@" {redirection}', "sh", sys.executable, str(ROOT / "generate_infinitetalk.py"), word]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "Exception" not in done.stderr


@pytest.fixture(scope="module")
def argv(model_files, speech, tmp_path_factory):
    small = {"device": "cpu", "size": "64x64", "frame_num": 17, "motion_frame": 5, "sample_steps": 1}
    small |= {"sample_text_guide_scale": 1, "sample_audio_guide_scale": 1}
    flags = {**model_files, "image": PORTRAIT, "audio": speech, "prompt": "p", **small}
    words = [f"--{name}={value}" for name, value in flags.items()]
    path = tmp_path_factory.mktemp("warm") / "video"
    assert main([*words, "--save_file", str(path), "--quiet"]) == 0  # so that those to come need import nothing
    return words


@pytest.mark.parametrize(("stream", "how"), [("stderr", "broken"), ("all", "closed")])
def test_a_video_is_finished_whatever_becomes_of_the_terminal(argv, tmp_path, stream, how):
    code, out, err = ends([*argv, "--save_file", str(tmp_path / "video")], stream, how, tmp_path)
    assert code == (2 if (stream, how) == ("stdout", "full") else 0), err
    with av.open(str(tmp_path / "video.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 20
    assert {path.name for path in tmp_path.iterdir()} == {"video.mp4", "stdout", "stderr"}
    assert "Traceback" not in err and ("window 2/2 done" in err) == (stream not in ("stderr", "all"))
    assert (out == f"{tmp_path / 'video.mp4'}\n") == (stream not in ("stdout", "all"))


def test_a_terminal_that_goes_away_ends_nothing(monkeypatch):
    """Its lines are shown as long as it is there."""
    for error in (BrokenPipeError, OSError, ValueError):
        stream = Terminal(error)
        monkeypatch.setattr(sys, "stderr", stream)
        for _ in range(3):
            Messages().write("window 1/2")
        assert stream.written == "window 1/2"


class Terminal:
    """Takes one text, and then nothing any more."""

    encoding = "utf-8"

    def __init__(self, error):
        self.error, self.written = error, ""

    def isatty(self):
        return True

    def fileno(self):
        raise ValueError

    def write(self, text):
        if self.written:
            raise self.error
        self.written = text

    def flush(self):
        pass
