"""How near the video of an exported graph is to the graph's: the last lines, ``--strict``, and MultiTalk's graphs."""

import json

import pytest
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.export.exported import Take
from infinitetalk.tests.support.kijai_graphs import API, changed, export


@pytest.fixture
def api():
    return json.loads(API.read_text(encoding="utf-8"))


@pytest.fixture
def shown(tmp_path, capsys):
    """Exports a graph in the shell: the exit code, and the lines on stderr."""

    def run(data, *words):
        path = tmp_path / "graph.json"
        path.write_text(json.dumps(data), encoding="utf-8")
        code = main(["export", str(path), *words])
        return code, capsys.readouterr().err.splitlines()

    return run


def test_the_take_is_told_last_and_precision_apart_from_it(api, shown):
    code, lines = shown(api)
    assert code == 0
    assert lines[-2] == "take: the same up to the sound of silence behind the end of the speech."
    assert lines[-1].startswith(
        "precision: fp8 weights; base_precision fp16; attention by sageattn; a compiled graph; "
    )


def test_strict_refuses_another_take_and_never_precision(api, shown):
    assert shown(api, "--strict")[0] == 0
    changed(api, "MultiTalkWav2VecEmbeds", normalize_loudness=False)
    code, lines = shown(api)
    assert code == 0 and lines[-2] == "take: another, because loudness is normalised."
    code, lines = shown(api, "--strict")
    assert code == 2 and lines[-1].endswith("would become another take, because loudness is normalised.")


@pytest.mark.parametrize(
    ("kind", "inputs", "because"),
    [
        ("WanVideoSampler", {"scheduler": "multitalk"}, "nothing is known to run scheduler multitalk"),
        ("MultiTalkWav2VecEmbeds", {"audio_cfg_scale": 2.0}, "that pack used audio_cfg_scale otherwise"),
    ],
)
def test_what_makes_another_take_is_named(api, kind, inputs, because):
    take = export(changed(api, kind, **inputs)).take
    assert take.verdict.startswith("another, because ") and because in take.verdict


@pytest.mark.parametrize("scheduler", ["dpm++_sde", "dpm++", "unipc", "lcm", "res_multistep", "euler/beta"])
def test_that_packs_schedulers_are_the_same_take(api, scheduler):
    exported = export(changed(api, "WanVideoSampler", scheduler=scheduler))
    assert exported.take.other == () and exported.settings.noise == "kijai"


def test_the_words_of_a_take():
    assert Take().lines == ("take: the same.",)
    assert Take(near=("a", "b"), precision=("fp8",)).lines == ("take: the same up to a; b.", "precision: fp8.")
    assert Take(("x",), ("a",)).lines == ("take: another, because x.",)


def test_a_graph_of_multitalk_is_told_as_that(api):
    changed(api, "MultiTalkModelLoader", model="Wan2_1-MultiTalk_fp16.safetensors")
    with pytest.raises(InputError, match="MultiTalk's weights by their name; this is a graph for MultiTalk, another"):
        export(api)
