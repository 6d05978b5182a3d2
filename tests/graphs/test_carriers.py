"""Graphs in what people have of them: payloads, pictures, videos; and the names and seeds that are in them."""

import json
from pathlib import Path

import av
import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.graphs.graph import graph_of
from infinitetalk.tests.support.kijai_graphs import API, UI, changed, export
from PIL import Image
from PIL.PngImagePlugin import PngInfo


@pytest.fixture
def api():
    return json.loads(API.read_text(encoding="utf-8"))


def test_a_payload_for_runpods_worker(api):
    assert graph_of({"input": {"workflow": api, "images": []}}) == graph_of(api)
    assert graph_of({"prompt": json.dumps(api), "workflow": {"nodes": []}}) == graph_of(api)


def picture(path, **texts):
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def video(path, **tags):
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata.update(tags)
        stream = container.add_stream("h264", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    return path


def test_graphs_inside_pictures_and_videos(api, tmp_path, capsys):
    plain, saved = json.dumps(api), UI.read_text(encoding="utf-8")
    bare = tmp_path / "graph.json"
    bare.write_text(plain, encoding="utf-8")
    assert main(["export", str(bare)]) == 0
    command = capsys.readouterr().out
    for path in (
        picture(tmp_path / "both.png", prompt=plain, workflow=saved),
        picture(tmp_path / "page.png", workflow=saved),
        video(tmp_path / "core.mp4", prompt=plain, workflow=saved),
        video(tmp_path / "vhs.mp4", comment=json.dumps({"prompt": plain, "workflow": json.loads(saved)})),
    ):
        assert main(["export", str(path)]) == 0, path
        assert capsys.readouterr().out == command, path


def test_pictures_and_videos_without_a_graph(tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    for path, said in (
        (picture(tmp_path / "plain.png", Comment="hello"), "carries no graph"),
        (video(tmp_path / "plain.mp4", comment="hello"), "carries no settings"),
        (broken, "is not a picture that can be read"),
        (tmp_path / "none.png", "cannot be read: No such file"),
    ):
        assert main(["export", str(path)]) == 2
        assert said in capsys.readouterr().err


def test_seeds_of_rgthree(api):
    api["600"] = {"class_type": "Seed (rgthree)", "inputs": {"seed": 1234}}
    assert export(changed(api, "WanVideoSampler", seed=["600", 0])).settings.base_seed == 1234
    changed(api, "Seed (rgthree)", seed=-1)
    with pytest.raises(InputError, match=r"node 600 .*: draws another seed for every run; type a seed of 0"):
        export(api)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("C:\\Users\\me\\speech final.mp3", Path("C:\\Users\\me\\speech final.mp3")),
        ("/data/speech.mp3", Path("/data/speech.mp3")),
        ('"/data/speech.mp3"', Path("/data/speech.mp3")),
        ("input/speech.mp3", Path("speech.mp3")),
    ],
)
def test_paths_in_loaders_that_take_them(api, name, found):
    api["125"] = {"class_type": "VHS_LoadAudio", "inputs": {"audio_file": name, "seek_seconds": 0, "duration": 0}}
    assert export(api).settings.audio == found


def test_paths_elsewhere_and_addresses_are_refused(api):
    changed(api, "LoadAudio", audio="/data/speech.mp3")
    with pytest.raises(InputError, match=r"node 125 \(LoadAudio\): audio: '/data/speech.mp3' is not a name in one of"):
        export(api)
    api["125"] = {"class_type": "VHS_LoadAudio", "inputs": {"audio_file": "https://example.org/a.mp3"}}
    with pytest.raises(InputError, match="audio_file is an address; download it"):
        export(api)


def test_what_joins_windows_is_not_run_on_the_finished_video():
    data = json.loads((API.parent / "native_two_windows_api.json").read_text(encoding="utf-8"))
    (join,) = [node for node in data.values() if node["class_type"] == "ImageBatch"]
    join["class_type"] = "BatchImagesNode"
    assert not any("comes after the sampler" in note for note in export(data).notes)
