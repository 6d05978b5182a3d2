"""How the processes of a run end is told: by small programs in the place of this one, which would import PyTorch."""

import json
import os

import psutil
import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.parallel import launch

PROGRAM = """
import json, os, signal, sys, time
ends, place = json.loads(sys.argv[1]), sys.argv[2]
rank = os.environ["RANK"]
assert os.environ["WORLD_SIZE"] == "2" and os.environ[THREADS] == "1"
open(f"{place}/{rank}", "w").write(str(os.getpid()))
end = ends[int(rank)]
while end != 0 and not all(os.path.exists(f"{place}/{number}") for number in range(2)):
    time.sleep(0.01)
if end == "waits":
    time.sleep(600)
if isinstance(end, str):
    with open(os.environ["TORCHELASTIC_ERROR_FILE"], "w") as report:
        json.dump({"message": {"message": end, "extraInfo": {"timestamp": "0"}}}, report)
    sys.exit(2)
if end < 0:
    os.kill(os.getpid(), -end)
sys.exit(end)
""".replace("THREADS", repr(launch.THREADS))


@pytest.fixture
def started(tmp_path, monkeypatch):
    """Starts two processes that end like this: with an exit code, by a signal, or refusing with a sentence."""
    (tmp_path / "program.py").write_text(PROGRAM)
    monkeypatch.setattr(launch, "_program", lambda: ["-u", str(tmp_path / "program.py")])

    def call(*ends):
        before = [os.environ.get(name) for name in (launch.OURS, launch.THREADS)]
        try:
            launch.start([json.dumps(ends), str(tmp_path)], 2)
        finally:
            assert [os.environ.get(name) for name in (launch.OURS, launch.THREADS)] == before
            alive = [int((tmp_path / str(number)).read_text()) for number in range(2)]
            assert not any(map(psutil.pid_exists, alive))

    return call


def test_processes_that_end_well_are_waited_for(started):
    started(0, 0)


@pytest.mark.parametrize(
    ("ends", "sentence"),
    [
        (("waits", "two cards cannot do that"), r"^two cards cannot do that$"),
        (
            ("waits", -9),
            r"^The process of card 2 of 2 was ended from outside \(SIGKILL\), so the others were ended too",
        ),
        ((3, "waits"), r"^The process of card 1 of 2 ended with exit code 3, so the others were ended too"),
    ],
)
def test_one_that_ends_otherwise_ends_the_others_and_is_told(started, ends, sentence):
    with pytest.raises(InputError, match=sentence):
        started(*ends)
