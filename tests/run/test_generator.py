"""The whole way on a small random checkpoint in the real layout: command line, Python API, and what must not matter."""

import json
import shutil
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from infinitetalk.pipeline import Generator, InputError, Job, Settings
from infinitetalk.pipeline.commands.main import main
from infinitetalk.pipeline.media.audio import open_audio
from infinitetalk.pipeline.models.transformer.block import Block
from infinitetalk.pipeline.models.vae.model import WanVAE
from infinitetalk.pipeline.run.progress import Loading, Notice, Step, WindowDone, Working
from infinitetalk.tests.golden.speech import save_wav
from infinitetalk.tests.support.places import PORTRAIT, SPEECH
from PIL import Image, ImageOps

pytestmark = [pytest.mark.usefixtures("own_cache"), pytest.mark.whole]

TWO_WINDOWS = {"max_frame_num": 29}
SMALL = {"size": "64x64", "frame_num": 17, "motion_frame": 5, "sample_steps": 2, "device": "cpu"}
RATE = 22_050  # of the bundled speech
PROMPT = "A cat is talking to the camera."


def write_sound(path, samples):
    """Float samples [n, channels] as a wav file."""
    save_wav(path, (samples * 32767).astype(np.int16), RATE)


def read_sound(path):
    """Float samples [channels, n]."""
    return np.concatenate(list(open_audio(path).blocks()), axis=1)


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A second and a half of the bundled speech, in stereo."""
    path = tmp_path_factory.mktemp("speech") / "speech.wav"
    samples = read_sound(SPEECH)[0, : int(1.52 * RATE)]
    write_sound(path, np.stack([samples, samples], axis=1))
    return path


@pytest.fixture(scope="module")
def job(speech):
    return Job(PORTRAIT, speech, PROMPT)


def settings(weights, **changes):
    files = {
        "ckpt_dir": weights.ckpt_dir,
        "infinitetalk_dir": weights.infinitetalk,
        "wav2vec_dir": weights.wav2vec_dir,
    }
    return Settings(**files, **{**SMALL, **changes})


@pytest.fixture(scope="module")
def generator(weights):
    return Generator(settings(weights))


def video(generator, job, changed=None):
    """All frames, uint8 [T, H, W, 3]."""
    return torch.cat([window.frames for window in generator.windows(job, changed)])


@pytest.fixture(scope="module")
def frames(generator, job):
    return video(generator, job)


@pytest.mark.parametrize(
    "more",
    [pytest.param({}, marks=pytest.mark.long), {"use_apg": True}, {"use_teacache": True, "teacache_thresh": 5.0}],
)
def test_guidance_by_speech_in_some_steps(generator, weights, job, more):
    """In all steps it is the usual one, in the first alone it is between that and none."""
    steps = 8 if "use_teacache" in more else 3
    changed = settings(weights, sample_steps=steps, sample_text_guide_scale=1.0, max_frame_num=17, **more)
    whole = video(generator, job, changed)
    assert torch.equal(video(generator, job, changed.replace(sample_audio_guide_steps=steps)), whole)
    some = video(generator, job, changed.replace(sample_audio_guide_steps=1))
    none = video(generator, job, changed.replace(sample_audio_guide_scale=1.0))
    assert not torch.equal(some, whole) and not torch.equal(some, none)


def difference(a, b):
    """Mean change of a pixel, as a part of the range."""
    return ((a.float() - b.float()).abs().mean() / 255).item()


@pytest.mark.parametrize("count", [4, 32])
def test_even_seams_change_the_first_new_frames_alone(generator, job, frames, count):
    """4 do not reach the frames that the next window is held to; of 32 there are as many as are new."""
    even = video(generator, job, generator.settings.replace(seam_frames=count))
    assert torch.equal(even[:17], frames[:17])
    assert all(not torch.equal(even[k], frames[k]) for k in range(17, 17 + min(count, 12)))
    if count == 4:
        assert all(not torch.equal(even[k], frames[k]) for k in range(29, 33))
        assert torch.equal(even[21:29], frames[21:29]) and torch.equal(even[33:], frames[33:])


def arguments(weights):
    return [
        *("--ckpt_dir", str(weights.ckpt_dir), "--infinitetalk_dir", str(weights.infinitetalk)),
        *("--wav2vec_dir", str(weights.wav2vec_dir), "--device", "cpu"),
    ]


def read(path):
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        stream = container.streams.audio[0]
        return np.stack(pictures), stream.codec_context.sample_rate, stream.codec_context.layout.nb_channels


def test_the_guides_command_makes_a_video_with_the_original_sound(weights, speech, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    entries = {"prompt": PROMPT, "cond_video": str(PORTRAIT), "cond_audio": {"person1": str(speech)}}
    Path("input.json").write_text(json.dumps(entries), encoding="utf-8")
    flags = "--size 64x64 --frame_num 17 --sample_steps 2 --mode streaming --motion_frame 9 --save_file out"
    assert main([*arguments(weights), "--input_json", "input.json", *flags.split(), "--t5_cpu", "true"]) == 0
    output = capsys.readouterr()
    assert output.out == "out.mp4\n"
    assert "window 4/4 done" in output.err
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".mp4"] == ["out.mp4"]
    pictures, rate, channels = read(tmp_path / "out.mp4")
    assert pictures.shape == (38, 64, 64, 3)
    assert (rate, channels) == (22_050, 2)
    assert pictures.std() > 20


def test_an_existing_video_is_kept(weights, speech, tmp_path, capsys):
    (tmp_path / "out.mp4").write_bytes(b"precious")
    flags = ["--image", str(PORTRAIT), "--audio", str(speech), "--prompt", PROMPT]
    assert main([*arguments(weights), *flags, "--save_file", str(tmp_path / "out")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "out.mp4").read_bytes() == b"precious"


def test_the_written_video_holds_the_frames_of_the_api(generator, job, frames, tmp_path):
    generator.save(job, tmp_path / "out.mp4", generator.settings.replace(crf=0))
    assert np.array_equal(read(tmp_path / "out.mp4")[0], frames.numpy())
    with av.open(str(tmp_path / "out.mp4")) as container:
        made = json.loads(container.metadata["infinitetalk"])
    assert made["settings"]["base_seed"] == 42
    assert made["job"]["prompt"] == PROMPT


def test_small_checkpoints_are_alive(generator, job, frames, tmp_path):
    """Speech, a word of the prompt and the picture each matter."""
    write_sound(tmp_path / "backwards.wav", read_sound(job.speech)[:1, ::-1].T)
    ImageOps.mirror(Image.open(job.reference)).save(tmp_path / "mirrored.png")
    changed = {
        "speech": Job(job.reference, tmp_path / "backwards.wav", PROMPT),
        "a word": Job(job.reference, job.speech, PROMPT.replace("talking", "singing")),
        "picture": Job(tmp_path / "mirrored.png", job.speech, PROMPT),
    }
    for what, other in changed.items():
        found = video(generator, other, generator.settings.replace(**TWO_WINDOWS))
        assert difference(found, frames[:29]) > 0.01, what


def test_models_are_loaded_once(weights, job):
    heard = []
    generator = Generator(settings(weights), heard.append)
    first = video(generator, job)
    loaded = sum(isinstance(event, Loading) and "loading" in event.what for event in heard)
    assert loaded == 4 or loaded == 5  # the text encoder only where the prompt is not cached
    heard.clear()
    assert torch.equal(video(generator, job), first)
    assert not any(isinstance(event, Loading) and "loading" in event.what for event in heard)
    assert [event.done for event in heard if isinstance(event, Step)] == [1, 2] * 3


@pytest.mark.parametrize(
    "changes",
    [
        {"num_persistent_param_in_dit": 0},
        {"offload_model": True, "blocks_to_swap": 1, "t5_cpu": True},
        *(pytest.param(one, marks=pytest.mark.long) for one in ({"blocks_to_swap": 1}, {"offload_model": True})),
    ],
)
def test_memory_settings_never_change_a_bit(weights, job, frames, changes):
    assert torch.equal(video(Generator(settings(weights, **TWO_WINDOWS, **changes)), job), frames[:29])


def test_the_seed_and_only_the_seed_changes_the_noise(generator, job, frames):
    two = generator.settings.replace(**TWO_WINDOWS)
    assert torch.equal(video(generator, job, two), frames[:29])
    assert difference(video(generator, job, two.replace(base_seed=7)), frames[:29]) > 0.01


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_text_guide_scale": 1.0},
        {"sample_text_guide_scale": 1.0, "sample_audio_guide_scale": 1.0},
        {"sample_audio_guide_scale": 1.0},
        {"use_apg": True},
        {"sample_solver": "unipc"},
        {"sample_solver": "lcm", "sample_steps": 4},
        {"sample_solver": "flowmatch_distill", "sample_steps": 4},
        {"use_teacache": True, "teacache_thresh": 5.0, "sample_steps": 8},
        {"color_correction_strength": 0.0},
        {"motion_frame": 7},
        {"size": "80x64"},
    ],
)
def test_every_way_of_sampling_runs_and_matters(generator, job, frames, changes):
    other = video(generator, job, generator.settings.replace(**TWO_WINDOWS, **changes))
    assert len(other) == 29
    assert other.float().std() > 10
    if other.shape == frames[:29].shape:
        assert difference(other, frames[:29]) > 1e-3


def test_speech_shorter_than_a_window(generator, job, tmp_path):
    write_sound(tmp_path / "short.wav", read_sound(job.speech)[:1, : RATE // 5].T)
    assert len(video(generator, Job(job.reference, tmp_path / "short.wav", PROMPT))) == 5


def test_clip_mode_and_longest_video_say_that_they_cut(weights, job):
    for changes, length in (({"mode": "clip"}, 17), ({"max_frame_num": 20}, 20)):
        heard = []
        assert len(video(Generator(settings(weights, **changes), heard.append), job)) == length
        assert any(isinstance(event, Notice) and "ends the video" in event.text for event in heard)


def test_a_video_as_reference_is_read_by_time(generator, job, tmp_path):
    """The first window sees the first half of the video, the last one the second half."""
    portrait = Image.open(job.reference).resize((64, 64))
    path = tmp_path / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10"})
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for k in range(16):
            picture = portrait if k < 8 else ImageOps.mirror(portrait)
            container.mux(stream.encode(av.VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    plain = generator.settings.replace(color_correction_strength=0.0)
    dubbed = video(generator, Job(path, job.speech, PROMPT), plain)
    portrait.save(tmp_path / "still.png")
    still = video(generator, Job(tmp_path / "still.png", job.speech, PROMPT), plain)
    assert len(dubbed) == 38
    early, late = difference(dubbed[:17], still[:17]), difference(dubbed[30:], still[30:])
    assert late > 2 * early


def test_an_interrupted_run_keeps_what_was_made(weights, job, tmp_path):
    def stop(event):
        if isinstance(event, WindowDone) and event.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Generator(settings(weights), stop).save(job, tmp_path / "out.mp4")
    assert not (tmp_path / "out.mp4").exists()
    with av.open(str(tmp_path / "out.partial.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 29


def test_a_run_can_be_stopped_before_every_block_and_every_piece_of_video(weights, job, monkeypatch):
    """A host learns that the user cancelled when it is told of something: so it is told before each of them."""
    done = []

    def run_block(self, *args, made=Block.forward):
        done.append("block")
        return made(self, *args)

    def decode(self, *args, made=WanVAE.decode_frames):
        for piece in made(self, *args):
            done.append("piece")
            yield piece

    def listen(event):
        if isinstance(event, Working):
            done.append("asked")

    monkeypatch.setattr(Block, "forward", run_block)
    monkeypatch.setattr(WanVAE, "decode_frames", decode)
    one_pass = settings(weights, sample_text_guide_scale=1.0, sample_audio_guide_scale=1.0)
    next(Generator(one_pass, listen).windows(job))
    assert done.count("block") == 2 * 2 and done.count("piece") > 1  # two steps of two blocks
    assert all(before == "asked" for before, what in pairwise(done) if what != "asked")


def test_files_of_other_publishers(weights, job, frames, tmp_path):
    """The transformer as one file, the others named by flags."""
    from infinitetalk.pipeline.checkpoints.files import open_tensors
    from safetensors.torch import save_file

    base = open_tensors(weights.ckpt_dir, "")
    audio = open_tensors(weights.infinitetalk, "")
    whole = {f"model.diffusion_model.{name}": base[name] for name in base}
    whole |= {f"model.diffusion_model.{name}": audio[name] for name in audio}
    save_file(whole, tmp_path / "whole.safetensors")
    shutil.copy(weights.ckpt_dir / "config.json", tmp_path)
    vae = open_tensors(weights.ckpt_dir / "Wan2.1_VAE.pth", "")
    save_file({name: vae[name] for name in vae}, tmp_path / "vae.safetensors")
    other = Settings(
        dit_path=tmp_path / "whole.safetensors",
        vae=tmp_path / "vae.safetensors",
        text_encoder=weights.ckpt_dir / "models_t5_umt5-xxl-enc-bf16.pth",
        clip_vision=weights.ckpt_dir / "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
        wav2vec_dir=weights.wav2vec_dir,
        **SMALL,
    )
    # Weights at other addresses may round otherwise, so not bit for bit.
    assert difference(video(Generator(other), job), frames) < 1e-3


def test_settings_of_the_models_cannot_change_from_video_to_video(generator, job):
    for changes in ({"dtype": "bf16"}, {"vae": Path("other.pth")}, {"blocks_to_swap": 1}):
        with pytest.raises(InputError, match="belongs to the generator"):
            next(generator.windows(job, generator.settings.replace(**changes)))


def test_a_negative_prompt_that_cannot_matter_is_not_encoded(weights, job):
    heard = []
    generator = Generator(settings(weights, sample_text_guide_scale=1.0, max_frame_num=5), heard.append)
    video(generator, job)  # the prompt is in the cache now
    heard.clear()
    video(generator, Job(job.reference, job.speech, PROMPT, negative_prompt="never seen before"))
    assert Loading("encoding the prompt") not in heard
    guided = generator.settings.replace(sample_text_guide_scale=5.0)
    video(generator, Job(job.reference, job.speech, PROMPT, negative_prompt="never seen before"), guided)
    assert Loading("encoding the prompt") in heard


def test_missing_files_are_sentences_from_python_too(generator, job, tmp_path):
    for other in (Job("nope.png", job.speech, PROMPT), Job(job.reference, "nope.wav", PROMPT)):
        with pytest.raises(InputError, match="nope"):
            generator.save(other, tmp_path / "out.mp4")


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB."), "The card's memory"),
        (RuntimeError("CUDA error: out of memory"), "The card's memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "This computer's memory"),
        (MemoryError(), "This computer's memory"),
    ],
)
def test_lack_of_memory_is_a_sentence(weights, speech, tmp_path, capsys, monkeypatch, error, sentence):
    def fail(*arguments):
        raise error

    monkeypatch.setattr("infinitetalk.pipeline.run.loaded_models.load_transformer", fail)
    flags = ["--image", str(PORTRAIT), "--audio", str(speech), "--prompt", PROMPT]
    assert main([*arguments(weights), *flags, "--save_file", str(tmp_path / "out")]) == 2
    assert sentence in capsys.readouterr().err.splitlines()[-1]
