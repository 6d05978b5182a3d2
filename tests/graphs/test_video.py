"""``infinitetalk export video.mp4``: the exported line makes the same frames, whatever made the video."""

import json
from pathlib import Path

import av
import pytest
import torch
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.graphs.places import FolderFiles, PortableFiles
from infinitetalk.pipeline.graphs.video import read_video
from infinitetalk.pipeline.job.record import read_record
from infinitetalk.pipeline.media.fragments import VideoFormat
from infinitetalk.pipeline.media.writer import VideoWriter
from infinitetalk.pipeline.settings.definition import NEGATIVE_PROMPT, Settings
from infinitetalk.pipeline.settings.validation import resolve
from infinitetalk.tests.support.places import PORTRAIT, QUEUED, SPEECH
from infinitetalk.tests.support.shell import words_of


def frames(path):
    with av.open(str(path)) as video:
        return [frame.to_ndarray(format="rgb24").tobytes() for frame in video.decode(video=0)]


def exported(capsys, *argv):
    capsys.readouterr()
    assert main(["export", *map(str, argv)]) == 0
    return capsys.readouterr()


PROMPT = 'She says "it\'s $5" \\ 100 %\n你好'


@pytest.mark.whole
@pytest.mark.parametrize(("by_json", "full"), [(False, False), (True, True)])
def test_the_exported_line_makes_the_same_frames(command, tmp_path, capsys, monkeypatch, by_json, full):
    """With a seed that nobody gave: the video has the one that was used."""
    changed = {"base_seed": -1, "prompt": PROMPT, "negative_prompt": "", "use_apg": True, "crf": 0}
    if by_json:
        entries = {"prompt": PROMPT, "negative_prompt": "", "cond_video": str(PORTRAIT)}
        entries["cond_audio"] = {"person1": str(SPEECH)}
        (tmp_path / "in.json").write_text(json.dumps(entries), encoding="utf-8")
        changed |= {"input_json": tmp_path / "in.json", "image": None, "audio": None, "prompt": None}
        changed |= {"negative_prompt": None, "max_frame_num": 20}
    assert command(**changed) == 0
    (video,) = (tmp_path / "out").glob("*.mp4")
    out, err = exported(capsys, video, *(["--full"] if full else []))
    assert err == "" and "input_json" not in out
    seed = read_record(video).settings["base_seed"]
    assert seed >= 0 and f"--base_seed {seed}" in out
    assert ("--sample_shift" in out) == full  # which followed from the size
    monkeypatch.chdir(tmp_path)
    assert main(words_of(out)) == 0, capsys.readouterr().err
    assert frames(tmp_path / "out" / "video_again.mp4") == frames(video) != []


def write(path, settings=None, job=None, tags=None):
    job = {"reference": "me.png", "speech": "a.wav", "prompt": "p", "negative_prompt": NEGATIVE_PROMPT} | (job or {})
    metadata = {"version": "9.9", "settings": resolve(Settings()).as_json() | (settings or {}), "job": job}
    with VideoWriter(path, VideoFormat(64, 64), metadata=metadata, tags=tags) as writer:
        writer.write_window(torch.zeros(2, 64, 64, 3, dtype=torch.uint8))
        return writer.finish()


def test_values_of_a_preset_stay_the_presets(tmp_path, capsys):
    settings = {"preset": "04_high_quality", "use_apg": True, "sample_steps": 40, "sample_shift": 7.0}
    out, err = exported(capsys, write(tmp_path / "v.mp4", settings))
    assert "--preset 04_high_quality" in out and "--use_apg" not in out and "--sample_steps" not in out
    assert "me.png is not there now" in err and "a.wav is not there now" in err and err.count("note: ") == 2


def test_a_video_to_dub_is_one_again(tmp_path):
    found = read_video(write(tmp_path / "v.mp4", {"video": "clip.bin"}, {"reference": "clip.bin"}), PortableFiles())
    assert (found.settings.video, found.settings.image) == (Path("clip.bin"), None)


def test_settings_of_another_version_are_told(tmp_path):
    path = write(tmp_path / "v.mp4", {"of_the_future": 3, "preset": "99_future"})
    found = read_video(path, PortableFiles())
    assert "--of_the_future" in found.notes[0] and "99_future" in found.notes[1] and found.settings.preset is None


@pytest.mark.parametrize("settings", [{"sample_steps": "many"}, {"size": None}, {"frame_num": 80}])
def test_damaged_settings_are_one_sentence(tmp_path, capsys, settings):
    path = write(tmp_path / "v.mp4", settings)
    assert main(["export", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("error: ") and err.count("\n") == 1


def test_what_was_not_made_here_is_one_sentence(tmp_path, capsys):
    (tmp_path / "v.mp4").write_bytes(b"no video")
    for name in ("v.mp4", "gone.mp4"):
        assert main(["export", str(tmp_path / name)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_a_video_from_comfyui_knows_its_sources_by_its_graph(tmp_path):
    """There the picture came as pixels, but the graph that lies in the file names it."""
    graph = json.loads((QUEUED / "infinitetalk_single_image.json").read_text())
    tags = {"prompt": json.dumps(graph)}
    path = write(tmp_path / "v.mp4", {"dit_path": "/models/x.gguf"}, {"reference": "image", "speech": "audio"}, tags)
    found = read_video(path, PortableFiles())
    assert (found.settings.image, found.settings.audio) == (Path("portrait.png"), Path("speech.wav"))
    assert found.settings.dit_path == Path("/models/x.gguf") and len(found.notes) == 1
    for name in ("models/x", "input/portrait.png", "input/speech.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = read_video(path, FolderFiles(tmp_path))
    assert found.settings.image == tmp_path / "input/portrait.png" and found.notes == ()
