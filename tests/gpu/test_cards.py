"""What only several cards show: the same bytes as one, whatever is divided, and what becomes of a killed process."""

import signal
import threading
import time

import psutil
import pytest
import torch

pytestmark = [
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA cards"),
    pytest.mark.usefixtures("own_cache"),
]
PATIENCE = 20  # seconds in which nothing of a run may be left
GUIDED = {"device": None, "sample_audio_guide_scale": 2, "vae_tiles": 2}


def kill_when_there(rank, killed):
    """The process of this number, as soon as it has been computing for a while."""
    for _ in range(1200):
        for process in psutil.Process().children(recursive=True):
            try:
                if process.environ().get("RANK") == rank and process.cpu_times().user > 10:
                    process.send_signal(signal.SIGKILL)
                    killed.append(time.monotonic())
                    return
            except psutil.Error:
                continue
        time.sleep(0.1)


@pytest.mark.parametrize("more", [{}, {"dit_fsdp": True}, {"dit_fsdp": True, "vram_limit": 2}])
def test_two_cards_make_what_one_makes(command, tmp_path, more):
    limit = {name: value for name, value in more.items() if name == "vram_limit"}  # which the video tells of
    assert command(**GUIDED, **limit) == 0
    (video,) = (tmp_path / "out").glob("*.mp4")
    whole = video.read_bytes()
    video.unlink()
    assert command(**GUIDED, **more, gpus=2) == 0
    assert video.read_bytes() == whole


def test_one_card_goes_on_where_two_were_killed(command, tmp_path, capfd):
    assert command(**GUIDED) == 0
    (video,) = (tmp_path / "out").glob("*.mp4")
    whole = video.read_bytes()
    video.unlink()
    killed = []
    killer = threading.Thread(target=kill_when_there, args=("1", killed))
    killer.start()
    assert command(**GUIDED, gpus=2) in (0, 2)
    killer.join()
    if killed:
        assert time.monotonic() - killed[0] < PATIENCE
        assert "was ended from outside (SIGKILL)" in capfd.readouterr().err
        assert command(**GUIDED, resume=True) == 0
    assert video.read_bytes() == whole
