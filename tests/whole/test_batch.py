"""A batch by two processes, killed on the way: the videos of single runs, and a sentence for each bad job."""

from infinitetalk.pipeline.commands.main import main
from infinitetalk.tests.support.batches import FLAGS, Run

SMALL = ["--size", "64x64", "--frame_num", "17", "--sample_steps", "1", "--seam_frames", "0"]


def test_killed_once_and_then_as_if_nothing_had_been(tmp_path, surroundings):
    run = Run(tmp_path, 5, 2, [*FLAGS, *SMALL], main)  # make test-batch has forty, killed twelve times
    code, kills = run.killed("out", 2, 1, last=1)
    assert code == 3 and kills == 1
    run.check("out", 1)
