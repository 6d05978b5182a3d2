"""wav2vec2's features: upstream's numbers, every kind of file, chunks, windows and silence."""

import json

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.errors import InputError
from infinitetalk.pipeline.facts import downloads
from infinitetalk.pipeline.media.audio import SAMPLE_RATE, frame_count
from infinitetalk.pipeline.models import speech_encoder
from infinitetalk.pipeline.models.speech_encoder import Chunking, SpeechEncoder, load_speech_encoder
from infinitetalk.pipeline.models.speech_features import CACHED_CHUNKS, features_from_tensor
from infinitetalk.tests.golden.encoders import random_weights
from infinitetalk.tests.golden.speech import speech_like
from infinitetalk.tests.support.places import DATA
from safetensors import safe_open
from safetensors.torch import save_file
from transformers import Wav2Vec2Config, Wav2Vec2Model

GOLDEN = DATA / "speech.safetensors"
OLD_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


@pytest.fixture(scope="module")
def golden():
    with safe_open(GOLDEN, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        return tensors | {name: json.loads(file.metadata()[name]) for name in ("configs", "shapes")}


@pytest.fixture(scope="module")
def base(golden):
    return golden["configs"]["base"], random_weights(golden["shapes"]["base"])


@pytest.fixture(scope="module")
def speech(golden):
    return golden["speech"].numpy()


def save_folder(folder, config, weights, name="model.safetensors"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save = save_file if name.endswith(".safetensors") else torch.save
    save(weights, folder / name)
    return folder


def renamed(weights, prefix="", old_names=False):
    names = OLD_NAMES.items() if old_names else ()
    result = {}
    for name, tensor in weights.items():
        for new, old in names:
            name = name.replace(new, old)
        result[prefix + name] = tensor
    return result


def all_frames(features):
    """[frames, layers, channels]."""
    return features.windows(0, features.num_frames)[:, 2]


@pytest.mark.parametrize("pieces", [{}, {"PIECE": 999, "NORM_PIECE": 500, "CONVOLVED": 7}])
@pytest.mark.parametrize("kind", ["base", "large"])
def test_features_are_those_of_upstream(tmp_path, monkeypatch, golden, speech, kind, pieces):
    for name, size in pieces.items():  # as small as to long speech they are outside of tests
        monkeypatch.setattr(speech_encoder, name, size)
    weights = random_weights(golden["shapes"][kind])
    encoder = load_speech_encoder(save_folder(tmp_path, golden["configs"][kind], weights), "cpu")
    expected = golden[f"features.{kind}"]
    features = encoder.encode(speech)
    assert features.num_frames == len(expected) == frame_count(speech.size) == 30
    assert (encoder.layers, encoder.channels) == expected.shape[1:] == (3, 32)
    torch.testing.assert_close(all_frames(features), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


def test_features_follow_the_speech(base, tmp_path, speech):
    encoder = load_speech_encoder(save_folder(tmp_path, *base), "cpu")
    one, other = (all_frames(encoder.encode(x)) for x in (speech, speech_like(1.2, SAMPLE_RATE, seed=5)))
    assert (one - other).abs().mean() > 0.05 * one.std()


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize("prefix", ["", "wav2vec2."])
def test_folders_of_every_kind(tmp_path, golden, base, speech, name, old_names, prefix):
    config, weights = base
    heads = {"quantizer.codevectors": torch.ones(2), "project_hid.weight": torch.ones(2), "lm_head.bias": torch.ones(2)}
    folder = save_folder(tmp_path, config, renamed(weights, prefix, old_names) | heads, name)
    frames = all_frames(load_speech_encoder(folder, "cpu").encode(speech))
    torch.testing.assert_close(frames, golden["features.base"], rtol=0, atol=1e-4)


@pytest.mark.parametrize("old_names", [False, True])
@pytest.mark.parametrize("large", [False, True])
def test_a_single_file_needs_no_config(tmp_path, golden, speech, old_names, large):
    config = golden["configs"]["large" if large else "base"] | {"hidden_size": 128, "num_attention_heads": 2}
    weights = Wav2Vec2Model(Wav2Vec2Config(**config)).state_dict()
    weights = random_weights({name: list(tensor.shape) for name, tensor in weights.items()})
    whole = load_speech_encoder(save_folder(tmp_path / "folder", config, weights), "cpu")
    file = tmp_path / "wav2vec2.safetensors"
    save_file(renamed(weights, "wav2vec2.", old_names), file)
    single = load_speech_encoder(file, "cpu")
    assert (single.layers, single.channels) == (3, 128)
    assert torch.equal(all_frames(single.encode(speech)), all_frames(whole.encode(speech)))


def test_a_config_beside_a_single_file_is_read_if_it_is_wav2vec2s(tmp_path, golden, base, speech):
    config, weights = base  # four heads of eight channels: nothing in the shapes tells
    save_folder(tmp_path, config, weights)
    frames = all_frames(load_speech_encoder(tmp_path / "model.safetensors", "cpu").encode(speech))
    torch.testing.assert_close(frames, golden["features.base"], rtol=0, atol=1e-4)
    save_folder(tmp_path, {"model_type": "t5", "hidden_size": 5}, weights)
    assert load_speech_encoder(tmp_path / "model.safetensors", "cpu").channels == 32


def test_weights_become_float32(tmp_path, base):
    config, weights = base
    half = {name: tensor.half() for name, tensor in weights.items()}
    encoder = load_speech_encoder(save_folder(tmp_path, config, half), "cpu")
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}
    assert not any(p.is_meta for p in (*encoder.model.parameters(), *encoder.model.buffers()))


@pytest.mark.parametrize("do_normalize", [True, False])
def test_level_matters_only_without_normalization(tmp_path, golden, speech, do_normalize):
    # the large kind: after its first convolution, whose bias makes the level matter, it has no norm over time
    folder = save_folder(tmp_path, golden["configs"]["large"], random_weights(golden["shapes"]["large"]))
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": do_normalize}))
    encoder = load_speech_encoder(folder, "cpu")
    quiet, loud = (all_frames(encoder.encode(gain * speech)) for gain in (0.1, 1.0))
    assert ((quiet - loud).abs().mean() < 0.01) == do_normalize


def _no_config(folder):
    (folder / "config.json").unlink()


def _no_weights(folder):
    (folder / "model.safetensors").unlink()


def _config(text):
    return lambda folder: (folder / "config.json").write_text(text)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_config, "no config.json"),
        (_no_weights, "neither model.safetensors nor pytorch_model.bin"),
        (_config("{"), "not valid JSON"),
        (_config("[1]"), "a JSON list"),
        (_config('{"model_type": "hubert"}'), "of type hubert"),
        (_config('{"conv_dim": [8], "conv_stride": [5, 2]}'), "does not describe a wav2vec2"),
    ],
)
def test_a_damaged_folder_gets_one_sentence(tmp_path, base, damage, message):
    folder = save_folder(tmp_path / "model", *base)
    damage(folder)
    with pytest.raises(InputError, match=message) as error:
        load_speech_encoder(folder, "cpu")
    assert str(folder) in str(error.value)
    assert downloads.SPEECH_ENCODER in str(error.value)


def test_other_bad_files_get_one_sentence(tmp_path, base):
    config, weights = base
    with pytest.raises(InputError, match="does not exist; download the model: infinitetalk download wav2vec"):
        load_speech_encoder(tmp_path / "nothing", "cpu")
    save_file({"blocks.0.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="not a wav2vec2 model; it holds blocks.0.weight"):
        load_speech_encoder(tmp_path / "other.safetensors", "cpu")
    folder = save_folder(tmp_path / "model", config | {"hidden_size": 64}, weights)
    with pytest.raises(InputError, match="expected"):
        load_speech_encoder(folder, "cpu")
    weights = {name: tensor for name, tensor in weights.items() if name != "encoder.layer_norm.weight"}
    with pytest.raises(InputError, match="lacks encoder.layer_norm.weight"):
        load_speech_encoder(save_folder(tmp_path / "model", config, weights), "cpu")


def test_less_than_one_frame_is_refused(base, tmp_path):
    encoder = load_speech_encoder(save_folder(tmp_path, *base), "cpu")
    with pytest.raises(InputError, match=r"lasts 0.040 s, less than one video frame"):
        encoder.encode(np.zeros(639, np.float32))
    assert encoder.encode(np.zeros(640, np.float32)).num_frames == 1


# --- chunks

CHUNKS = Chunking(whole=60, core=40, context=12)  # the positional convolution of the small model reaches 8 frames


@pytest.fixture(scope="module")
def long_speech():
    return speech_like(7.013, SAMPLE_RATE, seed=3).astype(np.float32)


def small_model(golden, kind, attention=True):
    model = Wav2Vec2Model(Wav2Vec2Config(**golden["configs"][kind])).eval()
    weights = random_weights(golden["shapes"][kind])
    if not attention:
        weights = {name: tensor * ("out_proj" not in name) for name, tensor in weights.items()}
    model.load_state_dict(weights)
    return model


def deviation(model, speech, chunking):
    """The largest difference between chunks and the whole, relative to the scale of the features."""
    chunked, whole = (all_frames(SpeechEncoder(model, chunking=c).encode(speech)) for c in (chunking, Chunking()))
    assert len(whole) == frame_count(speech.size) == 175
    return ((chunked - whole).abs().max() / whole.abs().max()).item()


# Exact to 1e-4: torch interpolates the whole clip at positions rounded to float32.


@pytest.mark.parametrize("kind", ["base", "large"])
def test_only_attention_tells_chunks_from_the_whole(golden, long_speech, kind):
    assert deviation(small_model(golden, kind, attention=False), long_speech, CHUNKS) < 1e-4
    assert deviation(small_model(golden, kind), long_speech, CHUNKS) > 1e-2


@pytest.mark.parametrize("kind", ["base", "large"])
def test_with_all_the_context_chunks_are_the_whole(golden, long_speech, kind):
    assert deviation(small_model(golden, kind), long_speech, Chunking(whole=60, core=40, context=175)) < 1e-4


def test_chunks_are_encoded_when_asked_for_and_few_are_kept(golden, long_speech):
    encoder = SpeechEncoder(small_model(golden, "base"), chunking=CHUNKS)
    runs = []
    encoder.model.register_forward_pre_hook(lambda module, inputs: runs.append(1))
    features = encoder.encode(long_speech)
    assert len(runs) == 0
    features.windows(0, 38)
    assert len(runs) == 1
    features.windows(30, 40)  # reaches two frames into the second chunk
    assert len(runs) == 2
    all_frames(features)
    assert len(runs) == 6  # five chunks, and silence past the end
    features.windows(170, 175)
    assert len(runs) == 6
    assert CACHED_CHUNKS < 5
    features.windows(0, 10)
    assert len(runs) == 7


def test_windows_do_not_depend_on_the_order_of_asking(golden, long_speech):
    encoder = SpeechEncoder(small_model(golden, "base"), chunking=CHUNKS)
    forwards = encoder.encode(long_speech)
    backwards = encoder.encode(long_speech)
    spans = [(start, start + 25) for start in range(0, 200, 25)]
    expected = [forwards.windows(*span) for span in spans]
    for span, windows in reversed(list(zip(spans, expected, strict=True))):
        assert torch.equal(backwards.windows(*span), windows)


# --- windows


def numbered(count, offset=0.0):
    """[count, 2 layers, 3 channels], every value of a frame its number."""
    return (torch.arange(count) + offset).float()[:, None, None].expand(count, 2, 3)


def heard(features, start, stop):
    windows = features.windows(start, stop)
    assert windows.shape == (stop - start, 5, 2, 3)
    assert windows.dtype == torch.float32
    return windows[:, :, 0, 0].int().tolist()


def test_windows_reach_two_frames_to_either_side():
    features = features_from_tensor(numbered(10), numbered(3, 100))
    assert features.num_frames == 10
    assert heard(features, 4, 6) == [[2, 3, 4, 5, 6], [3, 4, 5, 6, 7]]
    assert heard(features, 0, 2) == [[0, 0, 0, 1, 2], [0, 0, 1, 2, 3]]
    assert heard(features, 8, 12) == [
        [6, 7, 8, 9, 100],
        [7, 8, 9, 100, 101],
        [8, 9, 100, 101, 102],
        [9, 100, 101, 102, 102],
    ]
    assert heard(features, 50, 51) == [[102] * 5]


def test_without_silence_the_last_frame_repeats():
    assert heard(features_from_tensor(numbered(4), None), 3, 5) == [[1, 2, 3, 3, 3], [2, 3, 3, 3, 3]]


def test_frames_beyond_the_clip_come_before_silence():
    features = features_from_tensor(numbered(6), numbered(1, 100), num_frames=4)
    assert features.num_frames == 4
    assert heard(features, 4, 6) == [[2, 3, 4, 5, 100], [3, 4, 5, 100, 100]]


def test_past_the_end_is_the_silence_that_the_encoder_hears(tmp_path, base, speech):
    encoder = load_speech_encoder(save_folder(tmp_path, *base), "cpu")
    runs = []
    encoder.model.register_forward_pre_hook(lambda module, inputs: runs.append(1))
    features = encoder.encode(speech)
    features.windows(0, 28)
    assert len(runs) == 1  # silence is not encoded before it is needed
    tail = features.windows(40, 45)
    encoder.encode(speech).windows(40, 45)
    assert len(runs) == 3  # and once for all clips
    zeros = all_frames(encoder.encode(np.zeros(12 * SAMPLE_RATE, np.float32)))
    torch.testing.assert_close(tail[0, 0], zeros[150], rtol=0, atol=1e-2)
    torch.testing.assert_close(tail[-1, -1], zeros[150], rtol=0, atol=1e-2)
    assert (tail[0, 2] - features.windows(15, 16)[0, 2]).abs().mean() > 0.05
