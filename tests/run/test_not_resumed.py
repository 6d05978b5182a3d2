"""What is not resumed or overwritten, and why: damage, other settings or files, and files of somebody else."""

import pytest
from infinitetalk.pipeline import InputError, Job
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.job.output import state_path
from infinitetalk.pipeline.media.fragments import VideoFormat
from infinitetalk.pipeline.media.writer import VideoWriter
from infinitetalk.pipeline.run.progress import WindowDone
from infinitetalk.pipeline.run.resume import begin_state
from infinitetalk.tests.support.places import PORTRAIT
from infinitetalk.tests.support.unfinished import (
    FRAMES,
    assert_refused,
    contents,
    cut,
    frames,
    packets,
    resumed,
    run,
    write_speech,
)
from safetensors.torch import load_file, save_file

pytestmark = [pytest.mark.usefixtures("own_cache", "nobody_listens"), pytest.mark.whole]


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


def test_a_finished_video_is_not_made_again(argv, tmp_path, capsys):
    (tmp_path / "out.mp4").write_bytes(b"precious")
    assert run(argv, tmp_path / "out", "--resume") == 2
    assert_refused(capsys, "out.mp4 is finished", "--overwrite")
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


def test_two_runs_on_one_output(argv, tmp_path, capsys):
    with VideoWriter(tmp_path / "out.mp4", VideoFormat(64, 64)):
        assert run(argv, tmp_path / "out") == 2
    assert_refused(capsys, "another process is writing", "another --save_file")


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


def test_resume_needs_a_name(argv, capsys):
    assert main([*argv, "--resume"]) == 2
    assert_refused(capsys, "--resume needs --save_file")
