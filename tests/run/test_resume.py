"""Runs that end early: by kill, Ctrl-C, lack of memory or damage, and what resuming makes of them."""

import itertools
import multiprocessing
import os
import random
import shutil
import signal
import sys
import threading
import time

import av
import numpy as np
import psutil
import pytest
import torch
from infinitetalk.pipeline import Generator, InputError, Job, Settings
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.job.output import state_path
from infinitetalk.pipeline.media.fragments import VideoFormat
from infinitetalk.pipeline.media.writer import VideoWriter
from infinitetalk.pipeline.run.progress import RunStarted, Step, Stopped, WindowDone
from infinitetalk.pipeline.run.resume import begin_state, load_state
from infinitetalk.pipeline.run.windows import to_uint8
from infinitetalk.tests.golden.speech import save_wav
from infinitetalk.tests.support.places import PORTRAIT
from safetensors.torch import load_file, save_file

pytestmark = [pytest.mark.usefixtures("own_cache"), pytest.mark.whole]

SMALL = {
    "device": "cpu",
    "size": "64x64",
    "frame_num": 17,
    "motion_frame": 5,
    "sample_steps": 2,
    "sample_text_guide_scale": 1.0,
}
WINDOWS = 4
FRAMES = 17 + (WINDOWS - 1) * 12


def write_speech(path, frames, seed=0):
    """Noise in bursts, as long as so many video frames."""
    noise = np.random.default_rng(seed).normal(size=640 * frames) * (np.arange(640 * frames) // 3000 % 2)
    save_wav(path, (noise[:, None] * 3000).astype(np.int16), 16_000)
    return path


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    return write_speech(tmp_path_factory.mktemp("speech") / "speech.wav", FRAMES)


@pytest.fixture(scope="module")
def argv(model_files, speech):
    flags = {**model_files, "image": PORTRAIT, "audio": speech, "prompt": "p", **SMALL}
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def generator(model_files):
    return Generator(Settings(**model_files, **SMALL))


@pytest.fixture(autouse=True)
def nobody_listens(generator):
    yield
    generator.progress = lambda event: None


@pytest.fixture(scope="module")
def job(speech):
    return Job(PORTRAIT, speech, "p")


@pytest.fixture(scope="module")
def unbroken(generator, job, tmp_path_factory):
    path = tmp_path_factory.mktemp("unbroken") / "out.mp4"
    return packets(generator.save(job, path))


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


@pytest.fixture(scope="module")
def left_by_a_stop(generator, job, tmp_path_factory):
    """The folder of a run that stopped after two windows."""
    folder = tmp_path_factory.mktemp("stopped")
    generator.progress = after_window(2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        generator.save(job, folder / "out.mp4")
    generator.progress = lambda event: None
    assert frames(folder / "out.partial.mp4") == 29
    return folder


@pytest.fixture
def stopped(left_by_a_stop, tmp_path):
    """An output whose run stopped after two windows."""
    for path in left_by_a_stop.iterdir():
        shutil.copy2(path, tmp_path)
    return tmp_path / "out.mp4"


def resumed(generator):
    return generator.settings.replace(resume=True)


FORKS = multiprocessing.get_context("forkserver")  # processes of their own that need not import everything again
FORKS.set_forkserver_preload(
    [
        *("infinitetalk.pipeline.run.generator", "infinitetalk.pipeline.commands.main"),
        *("transformers.models.umt5.modeling_umt5", "pyloudnorm", "ftfy"),  # which a run would import
    ]
)


def command(argv, log):
    """What a shell would run, its messages in a file."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell runs the tests in the background
    with log.open("w", buffering=1) as stream:
        sys.stderr = stream
        sys.exit(main(argv))


def start(argv, output):
    log = output.with_name("log")
    log.write_text("")
    process = FORKS.Process(target=command, args=([*argv, "--resume", "--save_file", str(output)], log))
    process.start()
    return process, log


def wait_for(process, log, words):
    while words not in log.read_text():
        if not process.is_alive():
            raise AssertionError(f"the run ended with {process.exitcode} and said {log.read_text()}")
        time.sleep(0.01)


def finish(process, log):
    process.join()
    assert process.exitcode == 0, log.read_text()


@pytest.mark.parametrize("times", [3, pytest.param(10, marks=pytest.mark.long)])
def test_killed_and_resumed_gives_the_same_packets(argv, tmp_path, unbroken, times):
    moments = random.Random(1)
    output, partial = tmp_path / "out.mp4", tmp_path / "out.partial.mp4"
    kills = 0
    while kills < times:
        process, log = start(argv, output)
        wait_for(process, log, "s of video,")  # the loading is over, the windows begin
        time.sleep(moments.uniform(0, 0.8))
        process.kill()
        process.join()
        if process.exitcode == 0:  # it was faster
            assert packets(output) == unbroken
            output.unlink()
            continue
        kills += 1
        assert process.exitcode == -signal.SIGKILL
        before = load_state(output)
        if before is not None and before.windows:  # the state is there before the first window is
            assert frames(partial) >= 17
    finish(*start(argv, output))
    assert packets(output) == unbroken
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "log"}


def test_interrupt_ends_with_130_and_says_how_to_go_on(argv, tmp_path):
    process, log = start(argv, tmp_path / "out.mp4")
    wait_for(process, log, f"window 1/{WINDOWS} done")
    os.kill(process.pid, signal.SIGINT)
    process.join()
    assert process.exitcode == 130
    assert "--resume" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert frames(tmp_path / "out.partial.mp4") >= 17


def test_resumed_in_the_same_process(generator, job, stopped, unbroken):
    generator.save(job, stopped, resumed(generator))
    assert packets(stopped) == unbroken
    assert [path.name for path in stopped.parent.iterdir()] == ["out.mp4"]


def test_what_was_written_after_the_state_is_made_again(generator, job, stopped, unbroken):
    with (stopped.parent / "out.partial.mp4").open("ab") as file:
        file.write(b"half a window")
    generator.save(job, stopped, resumed(generator))
    assert packets(stopped) == unbroken


def test_killed_while_finishing(generator, job, stopped, unbroken, monkeypatch):
    """All windows are there, and the final name may be, too."""

    def killed(writer):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(VideoWriter, "finish", killed)
        with pytest.raises(KeyboardInterrupt):
            generator.save(job, stopped, resumed(generator))
    stopped.write_bytes(b"")
    generator.save(job, stopped, resumed(generator))
    assert packets(stopped) == unbroken


@pytest.mark.parametrize(
    "changes",
    [
        {"seam_frames": 4},
        {"seam_frames": 32},
        {"noise": "kijai", "sample_solver": "dpm++_sde"},
        {"noise": "upstream", "sample_start_step": 1},
    ],
    ids=str,
)
def test_what_goes_on_over_windows_goes_on_after_a_stop(generator, job, tmp_path, changes):
    """Seams from what was shown, also where they reach the frames that the next window is held to, as 32 do here; and
    one generator of noise for the whole run."""
    changed = generator.settings.replace(**changes)
    whole = packets(generator.save(job, tmp_path / "whole.mp4", changed))
    generator.progress = after_window(2, KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        generator.save(job, tmp_path / "out.mp4", changed)
    generator.progress = lambda event: None
    _, second = (window.frames for window in itertools.islice(generator.windows(job, changed), 2))
    assert torch.equal(to_uint8(load_state(tmp_path / "out.mp4").motion), second[-5:])
    generator.save(job, tmp_path / "out.mp4", changed.replace(resume=True))
    assert packets(tmp_path / "out.mp4") == whole


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


def test_a_torn_partial_file_is_refused(argv, stopped, capsys):
    cut(stopped.parent / "out.partial.mp4", 2000)
    assert run(argv, stopped, "--resume") == 2
    assert_refused(capsys, "out.partial.mp4 is not what the interrupted run wrote", "--overwrite")
    assert (stopped.parent / "out.partial.mp4").exists()


@pytest.mark.parametrize("size", [1, 2000, 10**9])
def test_a_torn_state_is_refused(argv, stopped, capsys, size):
    cut(state_path(stopped), size)
    assert run(argv, stopped, "--resume") == 2
    assert_refused(capsys, "out.partial.state is damaged", "--overwrite")


def test_an_unfinished_video_is_not_lost_by_starting_again(argv, stopped, capsys, unbroken):
    before = (stopped.parent / "out.partial.mp4").read_bytes()
    assert run(argv, stopped) == 2
    assert_refused(capsys, "is an unfinished video", "--resume", "--overwrite")
    assert (stopped.parent / "out.partial.mp4").read_bytes() == before
    assert run(argv, stopped, "--overwrite") == 0
    assert packets(stopped) == unbroken


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--sample_steps", "3"], "sample_steps was 2 and is 3 now"),
        (["--base_seed", "7"], "base_seed was 42 and is 7 now"),
        (["--prompt", "q"], "the prompt was 'p' and is 'q' now"),
        (["--crf", "20"], "crf was 18 and is 20 now"),
        (["--size", "80x64"], "size was '64x64' and is '80x64' now"),
        (["--seam_frames", "4"], "seam_frames was 0 and is 4 now"),
    ],
)
def test_a_run_with_other_settings_is_not_resumed(argv, stopped, capsys, flags, words):
    assert run(argv, stopped, "--resume", *flags) == 2
    assert_refused(capsys, "this is not the run that was interrupted", words)


def test_a_run_from_other_files_is_not_resumed(argv, stopped, tmp_path, capsys, weights):
    other = tmp_path / "other.png"
    other.write_bytes(PORTRAIT.read_bytes() + b"\n")
    assert run(argv, stopped, "--resume", "--image", str(other)) == 2
    assert_refused(capsys, "the reference changed")
    other = write_speech(tmp_path / "other.wav", FRAMES, seed=1)
    assert run(argv, stopped, "--resume", "--audio", str(other)) == 2
    assert_refused(capsys, "the speech changed")
    vae = tmp_path / "vae.pth"
    vae.write_bytes((weights.ckpt_dir / "Wan2.1_VAE.pth").read_bytes() + b"\0")
    assert run(argv, stopped, "--resume", "--vae", str(vae)) == 2
    assert_refused(capsys, "the weights of vae changed")


def test_memory_settings_may_change_between(argv, stopped, unbroken):
    assert run(argv, stopped, "--resume", "--blocks_to_swap", "1", "--offload_model", "true") == 0
    assert packets(stopped) == unbroken


def test_another_number_of_threads_is_refused_and_the_same_goes_on(argv, stopped, unbroken, capsys):
    try:
        assert run(argv, stopped, "--resume", "--threads", "2") == 2
    finally:
        torch.set_num_threads(1)
    assert_refused(capsys, "the number of threads (--threads) was '1' and is '2' now")
    assert run(argv, stopped, "--resume", "--threads", "1") == 0
    assert packets(stopped) == unbroken


def test_resume_without_an_earlier_run_just_runs(argv, tmp_path, unbroken):
    assert run(argv, tmp_path / "out", "--resume") == 0
    assert packets(tmp_path / "out.mp4") == unbroken


def test_a_finished_video_is_not_made_again(argv, tmp_path, capsys):
    (tmp_path / "out.mp4").write_bytes(b"precious")
    assert run(argv, tmp_path / "out", "--resume") == 2
    assert_refused(capsys, "out.mp4 is finished", "--overwrite")
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


def test_two_runs_on_one_output(argv, tmp_path, capsys):
    with VideoWriter(tmp_path / "out.mp4", VideoFormat(64, 64)):
        assert run(argv, tmp_path / "out") == 2
    assert_refused(capsys, "another process is writing", "another --save_file")


def test_the_whole_file_is_the_same_bytes(generator, job, stopped, tmp_path):
    generator.save(job, stopped, resumed(generator))
    again = generator.save(job, tmp_path / "again.mp4")
    assert stopped.read_bytes() == again.read_bytes()


def test_overwriting_destroys_nothing_before_the_first_new_window(generator, job, stopped, unbroken):
    generator.progress = after_start
    with pytest.raises(KeyboardInterrupt):
        generator.save(job, stopped, generator.settings.replace(overwrite=True))
    generator.progress = lambda event: None
    generator.save(job, stopped, resumed(generator))
    assert packets(stopped) == unbroken


def after_start(event):
    if isinstance(event, RunStarted):
        raise KeyboardInterrupt


def test_a_state_that_a_crash_left_beside_the_finished_video_goes(generator, job, stopped, capsys, argv):
    state = state_path(stopped).read_bytes()
    generator.save(job, stopped, resumed(generator))
    state_path(stopped).write_bytes(state)
    assert run(argv, stopped, "--resume") == 2
    assert_refused(capsys, "out.mp4 is finished")
    assert [path.name for path in stopped.parent.iterdir()] == ["out.mp4"]


def test_a_state_that_another_process_has_written_meanwhile_is_noticed(generator, job, stopped, monkeypatch):
    """Between reading it and locking the partial file."""
    planned = generator.plan

    def meanwhile(*given):
        begin_state(stopped, {}, anew=True)
        return planned(*given)

    monkeypatch.setattr(generator, "plan", meanwhile)
    with pytest.raises(InputError, match="another process has gone on with .*out.mp4"):
        generator.save(job, stopped, resumed(generator))


def test_a_lost_partial_file_is_named(argv, stopped, capsys):
    (stopped.parent / "out.partial.mp4").unlink()
    assert run(argv, stopped, "--resume") == 2
    assert_refused(capsys, "out.partial.mp4 is gone", "--overwrite")
    assert not (stopped.parent / "out.partial.mp4").exists()


def test_other_infinitetalk_weights_in_the_same_folder_are_noticed(argv, stopped, weights, tmp_path, capsys):
    folder = tmp_path / "InfiniteTalk"
    (folder / "single").mkdir(parents=True)
    tensors = load_file(weights.infinitetalk)
    tensors["audio_proj.proj2.bias"] += 1
    save_file(tensors, folder / "single" / "infinitetalk.safetensors")
    assert run(argv, stopped, "--resume", "--infinitetalk_dir", str(folder)) == 2
    assert_refused(capsys, "the weights of infinitetalk changed")


def test_sound_that_changes_while_it_is_used_is_noticed(generator, tmp_path, job):
    speech = write_speech(tmp_path / "speech.wav", 40)

    def change(event):
        if isinstance(event, WindowDone):
            write_speech(speech, 60, seed=3)

    generator.progress = change
    with pytest.raises(InputError, match="was changed while it was in use"):
        generator.save(Job(job.reference, speech, "p"), tmp_path / "out.mp4")
    assert frames(tmp_path / "out.partial.mp4") == 40
    assert not (tmp_path / "out.mp4").exists()


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("flags", [[], ["--overwrite"], ["--resume"], ["--resume", "--overwrite"]])
@pytest.mark.parametrize("name", ["out.partial.mp4", "out.partial.state", "out.partial.state.tmp"])
def test_a_file_of_somebody_else_is_in_the_way(argv, tmp_path, capsys, name, flags):
    (tmp_path / name).write_bytes(b"precious, and not a state of ours")
    assert run(argv, tmp_path / "out", *flags) == 2
    assert_refused(capsys, f"{name} is not ", "move it away, or give another name")
    assert contents(tmp_path) == {name: b"precious, and not a state of ours"}


@pytest.mark.parametrize("name", ["out.partial.mp4", "out.partial.state", "out.partial.state.tmp"])
def test_a_link_is_in_the_way(argv, tmp_path, capsys, name):
    (tmp_path / "precious").write_bytes(b"")
    for target in ("precious", "nothing"):
        (tmp_path / name).symlink_to(tmp_path / target)
        assert run(argv, tmp_path / "out", "--overwrite") == 2
        assert_refused(capsys, f"{name} is a symbolic link")
        (tmp_path / name).unlink()
    assert contents(tmp_path) == {"precious": b""}


def test_a_link_of_the_final_name_counts_as_a_file(argv, tmp_path, capsys):
    (tmp_path / "out.mp4").symlink_to(tmp_path / "nothing")
    assert run(argv, tmp_path / "out") == 2
    assert_refused(capsys, "out.mp4 exists", "--overwrite")


@pytest.mark.parametrize("name", ["v.partial", "v.partial.mp4", "v.tmp"])
def test_names_of_unfinished_videos_are_refused(argv, tmp_path, capsys, name):
    assert run(argv, tmp_path / name, "--overwrite") == 2
    assert_refused(capsys, "is a name of unfinished videos")
    assert not list(tmp_path.iterdir())


def test_a_source_with_the_name_of_the_unfinished_video_is_kept(argv, stopped, capsys):
    """Also where its own state is beside it."""
    partial = stopped.parent / "out.partial.mp4"
    before = contents(stopped.parent)
    position = argv.index("--image")
    for flags in (["--overwrite"], ["--resume"]):
        dub = [*argv[:position], "--video", str(partial), *argv[position + 2 :]]
        assert run(dub, stopped, *flags) == 2
        assert_refused(capsys, "out.partial.mp4 is what the video is made from", "give another name")
    assert contents(stopped.parent) == before


def test_a_file_that_appears_under_the_final_name_stays(argv, generator, job, stopped, capsys, unbroken):
    def appear(event):
        if isinstance(event, WindowDone):
            stopped.write_bytes(b"precious")
            (stopped.parent / "out.tmp.mp4").write_bytes(b"precious, too")

    generator.progress = appear
    with pytest.raises(InputError, match="has appeared in the meantime, and stays"):
        generator.save(job, stopped, resumed(generator))
    generator.progress = lambda event: None
    assert stopped.read_bytes() == b"precious" and (stopped.parent / "out.tmp.mp4").read_bytes() == b"precious, too"
    assert run(argv, stopped, "--resume", "--overwrite") == 0
    assert packets(stopped) == unbroken
    assert {path.name for path in stopped.parent.iterdir()} == {"out.mp4", "out.tmp.mp4"}


def test_a_file_that_appeared_since_is_replaced_only_on_request(argv, stopped, capsys):
    stopped.write_bytes(b"precious")
    assert run(argv, stopped, "--resume") == 2
    assert_refused(capsys, "out.mp4 exists; give --overwrite as well")
    assert stopped.read_bytes() == b"precious"


def test_the_state_is_there_before_the_partial_file(generator, job, tmp_path, monkeypatch):
    begin, seen = VideoWriter.__init__, []

    def look(writer, path, *arguments):
        seen.append((state_path(path).exists(), (tmp_path / "out.partial.mp4").exists()))
        begin(writer, path, *arguments)

    monkeypatch.setattr(VideoWriter, "__init__", look)
    generator.progress = after_start
    with pytest.raises(KeyboardInterrupt):
        generator.save(job, tmp_path / "out.mp4")
    assert seen == [(True, False)]
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_before_its_first_window_is_begun_anew(argv, tmp_path, unbroken):
    begin_state(tmp_path / "out.mp4", {})
    (tmp_path / "out.partial.mp4").write_bytes(b"")
    assert run(argv, tmp_path / "out") == 0
    assert packets(tmp_path / "out.mp4") == unbroken
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


def test_resume_needs_a_name(argv, capsys):
    assert main([*argv, "--resume"]) == 2
    assert_refused(capsys, "--resume needs --save_file")


def test_how_to_go_on_is_said_with_name_and_seed(argv, tmp_path, capsys, monkeypatch):
    def no_space(path, state):
        raise InputError("no space")

    monkeypatch.setattr("infinitetalk.pipeline.run.recording.save_state", no_space)
    assert main([*argv, "--save_file", str(tmp_path / "out"), "--base_seed", "5"]) == 2
    assert f"--resume --save_file {tmp_path / 'out.mp4'} --base_seed 5" in capsys.readouterr().err


def test_out_of_memory_loses_nothing(generator, job, tmp_path, unbroken):
    generator.progress = after_window(3, MemoryError)
    with pytest.raises(MemoryError):
        generator.save(job, tmp_path / "out.mp4")
    generator.progress = lambda event: None
    assert frames(tmp_path / "out.partial.mp4") == 41
    assert packets(generator.save(job, tmp_path / "out.mp4", resumed(generator))) == unbroken


def test_a_window_is_written_while_the_next_is_made(generator, job, tmp_path, unbroken, monkeypatch):
    write, going_on, order = VideoWriter.write_window, threading.Event(), []

    def slow(writer, frames):
        if writer.written.frames == 0:
            assert going_on.wait(60)
        write(writer, frames)

    def listen(event):
        if isinstance(event, Step | WindowDone):
            order.append(event)
        if isinstance(event, Step) and event.window == 1:
            going_on.set()

    monkeypatch.setattr(VideoWriter, "write_window", slow)
    generator.progress = listen
    assert packets(generator.save(job, tmp_path / "out.mp4")) == unbroken
    done = next(number for number, event in enumerate(order) if isinstance(event, WindowDone))
    assert any(isinstance(event, Step) and event.window == 1 for event in order[:done])
    assert [event.index for event in order if isinstance(event, WindowDone)] == list(range(WINDOWS))


def test_a_disk_that_fills_while_the_next_window_is_made(generator, job, tmp_path, unbroken, monkeypatch):
    write, told = VideoWriter.write_window, []

    def full(writer, frames):
        if writer.written.frames == 29:
            raise InputError("the disk is full")
        write(writer, frames)

    generator.progress = told.append
    with monkeypatch.context() as patch, pytest.raises(InputError, match="the disk is full"):
        patch.setattr(VideoWriter, "write_window", full)
        generator.save(job, tmp_path / "out.mp4")
    assert [event.windows for event in told if isinstance(event, Stopped)] == [2]
    assert frames(tmp_path / "out.partial.mp4") == 29
    assert packets(generator.save(job, tmp_path / "out.mp4", resumed(generator))) == unbroken


def test_memory_does_not_grow_with_the_windows(generator, tmp_path):
    used = {}

    def listen(event):
        if isinstance(event, WindowDone):
            used[event.index + 1] = psutil.Process(os.getpid()).memory_info().rss

    generator.progress = listen
    speech = write_speech(tmp_path / "long.wav", 17 + 9 * 12)
    generator.save(Job(PORTRAIT, speech, "p"), tmp_path / "long.mp4")
    assert len(used) == 10
    assert used[10] <= 1.02 * used[3]
