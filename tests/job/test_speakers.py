"""Who speaks where and when: flags, upstream's JSON, timelines; what cannot be understood is said."""

import json
from pathlib import Path

import pytest
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.job.identity import contents_identity
from infinitetalk.pipeline.job.job import Job, load_job
from infinitetalk.pipeline.job.speakers import Box, Half, MaskFile, Speaker, Turn, parse_speaker
from infinitetalk.pipeline.job.timeline import read_timeline
from infinitetalk.pipeline.settings.definition import Settings

A, B = Path("a.wav"), Path("b.wav")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("face.png", "a.wav", "b.wav", "m,1.png"):
        Path(name).write_bytes(b"x")
    return tmp_path


def flags(*speakers, **more):
    return Settings(image="face.png", speaker=list(speakers) or None, **more)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("audio=a.wav,region=left", Speaker(A, Half("left"))),
        ("region=box:1,2,30,40,audio=a.wav", Speaker(A, Box(1, 2, 30, 40))),
        ("audio=a.wav,region=mask:m,1.png,name=anna", Speaker(A, MaskFile(Path("m,1.png")), name="anna")),
        ("audio=none,region=right", Speaker(None, Half("right"))),
        ("audio=a.wav", Speaker(A)),
    ],
)
def test_a_speaker_in_words(text, expected):
    assert parse_speaker(text) == expected


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a.wav", "cannot be read at 'a.wav'"),
        ("audio=a.wav,region=top", "region 'top' found"),
        ("audio=a.wav,region=box:1,2,3", "the box"),
        ("audio=a.wav,region=box:9,2,3,4", "left, top, right, bottom"),
        ("audio=a.wav,region=box:0,0,nan,4", "the box"),
        ("audio=a.wav,audio=b.wav", "cannot be read at 'audio=b.wav'"),
        ("audio=", "cannot be read"),
    ],
)
def test_a_speaker_that_cannot_be_read(text, sentence):
    with pytest.raises(InputError, match=r"^--speaker") as caught:
        load_job(flags(text))
    assert sentence in str(caught.value)


def test_two_speakers_by_flags():
    job = load_job(flags("audio=a.wav,region=left", "audio=b.wav,region=right", audio_type="add"))
    assert job.speakers == (Speaker(A, Half("left")), Speaker(B, Half("right")))
    assert (job.speech, job.arrangement, job.files()) == (None, "add", (Path("face.png"), A, B))


def test_one_voice_for_one_face():
    job = load_job(flags("region=box:1,1,5,5", audio=A))
    assert job.speakers == (Speaker(A, Box(1, 1, 5, 5)),)


def test_nobody_speaks():
    with pytest.raises(InputError, match="nobody says anything"):
        load_job(flags("region=left", "region=right"))
    with pytest.raises(InputError, match="Nobody says anything"):
        Job(Path("face.png"))
    with pytest.raises(InputError, match="gone.wav does not exist"):
        load_job(flags("audio=gone.wav", "audio=a.wav"))


def test_upstreams_json_of_two():
    entries = {
        "prompt": "Two talk.",
        "cond_video": "face.png",
        "audio_type": "add",
        "cond_audio": {"person1": "a.wav", "person2": "None"},
        "bbox": {"person1": [10, 20, 30, 40], "person2": [1, 2, 3, 4]},
    }
    Path("job.json").write_text(json.dumps(entries))
    job = load_job(Settings(input_json="job.json"))
    # upstream's order is top, left, bottom, right, whatever it calls them
    assert job.speakers == (
        Speaker(A, Box(20, 10, 40, 30), name="person1"),
        Speaker(None, Box(2, 1, 4, 3), name="person2"),
    )
    assert (
        job.arrangement == "add" and load_job(Settings(input_json="job.json", audio_type="para")).arrangement == "para"
    )
    assert load_job(Settings(input_json="job.json", audio=B)).speakers == ()


@pytest.mark.parametrize(
    "text",
    [
        '{"anna": [[0, 1.5], [4, 5]], "ben": [[1, 3]]}',
        '[{"speaker": "ben", "start": 1, "end": 3}, {"speaker": "anna", "start": 4, "end": 5},'
        ' {"speaker": "anna", "start": 0, "end": 1.5}]',
        "SPEAKER talk 1 0.0 1.5 <NA> <NA> anna <NA> <NA>\nSPEAKER talk 1 1.0 2.0 <NA> <NA> ben <NA> <NA>\n"
        ";; a remark\nSPEAKER talk 1 4 1 <NA> <NA> anna <NA> <NA>\n",
    ],
)
def test_timelines_of_every_kind(text):
    Path("turns").write_text(text)
    assert read_timeline(Path("turns")) == {"anna": (Turn(0, 1.5), Turn(4, 5)), "ben": (Turn(1, 3),)}
    job = load_job(flags(audio=A, timeline="turns"))
    assert [(s.speech, s.name, len(s.turns)) for s in job.speakers] == [(A, "anna", 2), (A, "ben", 1)]
    named = load_job(flags("name=ben,region=left", "name=anna,region=right", audio=A, timeline="turns"))
    assert [(s.name, s.region.side, len(s.turns)) for s in named.speakers] == [("ben", "left", 1), ("anna", "right", 2)]


def test_a_channel_or_a_track_for_each():
    for kind in ("channel", "track"):
        job = load_job(flags(audio=A, timeline=f"{kind}s"))
        assert [getattr(speaker, kind) for speaker in job.speakers] == [0, 1]
        with pytest.raises(InputError, match="takes one recording"):
            load_job(flags(timeline=f"{kind}s"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "neither JSON"),
        ("[]", "no turns"),
        ("{}", "no turns"),
        ("[1, 2]", "no timeline"),
        ('{"anna": [[0]]}', "no timeline"),
        ('{"anna": [[2, 1]]}', "ends at 1 s, before the beginning at 2 s"),
        ('{"anna": [[0, "x"]]}', "'x' in turns is no time"),
        ("SPEAKER talk 1 0.0", "line 1 of turns"),
        ('{"anna": [[0, 1]]}', "turns of anna, --speaker names carl"),
    ],
)
def test_timelines_that_cannot_be_used(text, sentence):
    Path("turns").write_text(text)
    with pytest.raises(InputError, match=r"^--timeline") as caught:
        load_job(flags("name=carl", audio=A, timeline="turns"))
    assert sentence in str(caught.value)


def test_who_and_where_and_when_decide_the_frames():
    jobs = [
        flags("audio=a.wav,region=left", "audio=b.wav,region=right"),
        flags("audio=b.wav,region=left", "audio=a.wav,region=right"),
        flags("audio=a.wav,region=right", "audio=b.wav,region=left"),
        flags("audio=a.wav,region=left", "audio=b.wav,region=right", audio_type="add"),
        flags(audio=A, timeline="channels"),
    ]
    B.write_bytes(b"other")
    assert len({str(contents_identity(load_job(job), {})) for job in jobs}) == len(jobs)
