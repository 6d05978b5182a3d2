"""The bundled model: small, readable by the loaders, and its mouth follows the speech it is given and no other."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from infinitetalk.pipeline.evaluation.measures import evaluate_frames
from infinitetalk.pipeline.evaluation.reader import FaceReader, load_reader
from infinitetalk.pipeline.job.job import Job
from infinitetalk.pipeline.lora.reading import read_lora
from infinitetalk.pipeline.media.audio import Sound, open_audio
from infinitetalk.pipeline.media.speech import speech_for_model
from infinitetalk.pipeline.models.speech_encoder import SpeechEncoder
from infinitetalk.pipeline.models.transformer.attention import choose_attention
from infinitetalk.pipeline.models.transformer.block import Operations
from infinitetalk.pipeline.models.transformer.model import Context, WanTransformer
from infinitetalk.pipeline.models.transformer.pointwise import choose_pointwise
from infinitetalk.pipeline.run.generator import Generator
from infinitetalk.pipeline.settings.definition import Settings
from infinitetalk.pipeline.settings.demo import ASSETS, FACE_READER, FOLDER, demo_checkpoint, demo_settings
from infinitetalk.tests.support.places import SPEECH
from infinitetalk.training import (
    assemble,
    decoder,
    frozen,
    generating,
    latents,
    lora,
    prompts,
    settings_page,
    speech_encoder,
    transformer,
    transformer_network,
    vae,
    vae_network,
)
from infinitetalk.training.clips import Drawer, draw_clip, draw_portraits, make_scenes, part_of
from infinitetalk.training.drawing import draw
from infinitetalk.training.latents import reference_channels, speech_windows, still_latents
from infinitetalk.training.training import Clock, Optimizer
from safetensors.torch import load_file

pytestmark = pytest.mark.whole

DRAWN = ASSETS / "drawn_portrait.png"
CPU = torch.device("cpu")
FRAMES = 53  # of the window that is looked at


def babble(seconds, seed=0):
    """Something like speech: a voiced tone that comes and goes."""
    chance = np.random.default_rng(seed)
    times = np.arange(int(seconds * 16_000)) / 16_000
    beats = np.interp(times, np.arange(0, seconds + 1, 0.15), chance.random(len(np.arange(0, seconds + 1, 0.15))) ** 2)
    voice = sum(np.sin(2 * np.pi * 140 * k * times) / k for k in range(1, 12))
    return torch.from_numpy((0.2 * beats * voice).astype(np.float32))


def test_the_files_are_small():
    sizes = [path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(sizes) < 29e6 and max(sizes) < 16e6


def talk(**changes):
    """One window on the bundled portrait and speech with the settings of ``make demo``: frames, and what it heard."""
    speech = speech_for_model(open_audio(SPEECH))[: FRAMES * 640]
    checkpoint = demo_checkpoint()
    settings = Settings(
        ckpt_dir=checkpoint.ckpt_dir,
        infinitetalk_dir=checkpoint.infinitetalk_dir,
        wav2vec_dir=checkpoint.wav2vec_dir,
        device="cpu",
        size="192x192",
        frame_num=FRAMES,
        sample_shift=5.0,
        sample_text_guide_scale=1.0,
        sample_audio_guide_scale=1.0,
    ).replace(**changes)
    job = Job(DRAWN, Sound(np.array(speech)[None], 16_000), "A woman is talking to the camera.")
    (window,) = Generator(settings).windows(job)
    return window.frames.numpy(), np.array(speech)


@pytest.fixture(scope="module")
def talking():
    return talk(sample_steps=3)


@pytest.fixture(scope="module")
def reader():
    return load_reader(FACE_READER)[0]


def test_the_mouth_follows_the_speech(talking, reader):
    frames, speech = talking
    result = evaluate_frames(frames, speech, reader)
    assert result.frames == FRAMES and result.best_lag == 0
    assert result.correlation > 0.96 and result.error < 0.08
    assert result.background_db > 28 and result.colour_drift < 3


def test_the_mouth_does_not_follow_another_speech(talking, reader):
    frames, speech = talking
    backwards = evaluate_frames(frames, speech[::-1], reader).correlation
    babbled = evaluate_frames(frames, babble(3.3).numpy(), reader).correlation
    assert max(backwards, babbled) < 0.6


@pytest.mark.long
def test_the_lora_gives_few_steps_the_heads_motion_back(talking, reader):
    frames, speech = talk(sample_steps=4, lora_dir=(FOLDER / assemble.LORA_FILE,), lora_scale=(1.0,))
    with_lora, without = evaluate_frames(frames, speech, reader), evaluate_frames(*talking, reader)
    assert with_lora.correlation > 0.96 and with_lora.best_lag == 0
    assert with_lora.motion > 1.25 * without.motion


@pytest.mark.long
def test_even_seams_make_the_jump_between_windows_smaller():
    """Two windows of 17 frames, since the seam is the same as of long ones."""
    speech = np.array(speech_for_model(open_audio(SPEECH))[: 25 * 640])
    generator = Generator(demo_settings(device="cpu", frame_num=17, sample_steps=2))
    job = Job(DRAWN, Sound(speech[None], 16_000), "A woman is talking to the camera.")

    def jump(count):
        windows = generator.windows(job, generator.settings.replace(seam_frames=count))
        frames = torch.cat([window.frames for window in windows]).float()
        return (frames[17] - frames[16]).abs().mean()

    assert jump(generator.settings.seam_frames) < 0.9 * jump(0)


def test_the_face_reader_knows_a_mouth_it_never_saw(reader):
    scenes = make_scenes([950_001, 950_002], babble(2)[None], [prompts.CALM] * 2, clean=True)
    frames = draw(scenes.person, part_of(scenes.pose, 0, 24), 192)
    with torch.no_grad():
        told = reader(frames.flatten(0, 1))[:, 0]
    true = scenes.pose["opening"][:, :24].flatten()
    assert (told - true).abs().mean() < 0.06
    assert torch.corrcoef(torch.stack([told, true]))[0, 1] > 0.97


# Training: the same arithmetic as the engine's


def test_the_vae_in_training_is_the_engines():
    torch.manual_seed(0)
    vae = vae_network.build(8)
    vae_network.initialise(vae)
    whole = vae_network.Whole(vae)
    video = torch.rand(3, 9, 32, 48) * 2 - 1
    with torch.no_grad():
        latents = vae.encode(video)
        torch.testing.assert_close(whole.encode(video[None])[0], latents, rtol=1e-4, atol=1e-4)
        mean, std = vae_network.wan_statistics(CPU)
        pixels = whole.decode((latents * std + mean)[None])[0].clamp(-1, 1)
        torch.testing.assert_close(pixels, vae.decode(latents), rtol=1e-4, atol=1e-4)

        raw = whole.moments(video[None])[0]
        before = whole.decode(raw)
        vae_network.fold(vae, raw.mean(dim=(0, 2, 3, 4)), raw.std(dim=(0, 2, 3, 4)))
        folded = vae.encode(video)
        torch.testing.assert_close(folded.std(dim=(1, 2, 3)), torch.ones(16), rtol=1e-2, atol=1e-2)
        torch.testing.assert_close(whole.decode(whole.moments(video[None])[0]), before, rtol=1e-3, atol=1e-3)


def test_the_transformer_in_training_is_the_engines():
    config = replace(transformer_network.CONFIG, dim=64, ffn_dim=96, num_heads=2, num_layers=2)
    generator = torch.Generator().manual_seed(1)
    parameters = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator)
        for name, value in transformer_network.initial_parameters(config).items()
    }
    operations = Operations(choose_attention("sdpa", CPU, torch.float32), choose_pointwise("plain", CPU))
    engine = WanTransformer(config, operations)
    engine.load_state_dict(parameters)
    latents, reference = torch.randn(2, 16, 3, 4, 6), torch.randn(2, 20, 3, 4, 6)
    text, image = torch.randn(2, 7, config.text_dim), torch.randn(2, 9, config.image_dim)
    speech = torch.randn(2, 9, 5, 4, 96)
    padded = torch.nn.functional.pad(text, (0, 0, 0, 505))
    given = transformer_network.Conditions(reference, padded, image, speech)
    network = transformer_network.Network(config, parameters)
    with torch.no_grad():
        batch = network(latents, torch.tensor([700.0, 123.0]), given)
        for k, timestep in enumerate((700.0, 123.0)):
            keys = engine.encode_text(text[k], engine.blocks), engine.encode_image(image[k], engine.blocks)
            context = Context(*keys, engine.embed_speech(speech[k]))
            (alone,) = engine(latents[k], reference[k], timestep, [context], engine.blocks)
            torch.testing.assert_close(batch[k], alone, rtol=1e-3, atol=1e-3)


def test_speech_features_in_training_are_the_engines():
    torch.manual_seed(0)
    model = speech_encoder.build().eval()
    sound = babble(2)
    features = SpeechEncoder(model).encode(sound.numpy())
    ours = speech_encoder.encode(model, sound[None])
    torch.testing.assert_close(ours[0], features.windows(0, 50)[:, 2], rtol=1e-4, atol=1e-4)
    start = torch.tensor([3])
    torch.testing.assert_close(speech_windows(ours, start, 5)[0], features.windows(3, 8), rtol=1e-4, atol=1e-4)


def test_conditions_in_training_are_the_engines():
    torch.manual_seed(0)
    vae = vae_network.build(8)
    vae_network.initialise(vae)
    portrait = torch.rand(3, 32, 32) * 2 - 1
    with torch.no_grad():
        channels = reference_channels(still_latents(vae_network.Whole(vae), portrait), 12)[0]
        latents = vae.encode_still(portrait, 45)
    assert channels.shape == (20, 12, 4, 4)
    assert channels[:4, 0].eq(1).all() and channels[:4, 1:].eq(0).all()
    torch.testing.assert_close(channels[4:, :9], latents[:, :9], rtol=1e-4, atol=1e-4)


def test_the_norms_kernel_agrees_with_plain_pytorch(interpreted):
    code = """
import torch
from infinitetalk.training.norm_kernel import NormSilu
x = torch.randn(2, 50, 16, requires_grad=True)
gamma = (1 + 0.1 * torch.randn(16)).requires_grad_()
fused = NormSilu.apply(x, gamma, 6)
length = x.square().sum(-1, keepdim=True).add(1e-6).sqrt()
plain = torch.nn.functional.pad(torch.nn.functional.silu(x / length * gamma * 4), (0, 0, 6, 0))
torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)
towards = torch.randn_like(plain)
ours, theirs = (torch.autograd.grad(y, (x, gamma), towards) for y in (fused, plain))
torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
"""
    interpreted(code)


def test_the_optimizer_solves_a_small_task():
    torch.manual_seed(0)
    wanted = torch.randn(12, 8)
    matrix, bias = torch.nn.Parameter(torch.zeros(12, 8)), torch.nn.Parameter(torch.zeros(12))
    optimizer = Optimizer([matrix], [bias], rate=0.1)
    losses = []
    for step in range(150):
        x = torch.randn(64, 8)
        loss = (x @ matrix.T + bias - x @ wanted.T - 1).square().mean()
        matrix.grad, bias.grad = torch.autograd.grad(loss, (matrix, bias))
        optimizer.scale.fill_(1 - step / 150)
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.05 * losses[0]


# Data


def test_people_and_their_movements_are_the_same_again():
    first, again = (make_scenes([5, 6], babble(2)[None]) for _ in range(2))
    torch.testing.assert_close(draw_clip(first, 1, 3, 2, 48), draw_clip(again, 1, 3, 2, 48), rtol=0, atol=0)
    other = make_scenes([7, 6], babble(2)[None])
    assert not torch.allclose(draw_portraits(first.person, 48)[0], draw_portraits(other.person, 48)[0])


def test_a_timeline_begins_with_the_portrait():
    scenes = make_scenes([11], babble(2)[None], [prompts.SAD])
    torch.testing.assert_close(draw_clip(scenes, 0, 0, 1, 48)[0], draw_portraits(scenes.person, 48)[0])
    assert scenes.pose["opening"][0, 5:].max() > 0.5 and scenes.pose["smile"][0, 30] < -0.5


def test_training_never_sees_the_prompts_held_out():
    held_out = {text for texts in prompts.HELD_OUT.values() for text in texts}
    for mood in range(len(prompts.MOODS)):
        texts = prompts.training_prompts(mood, 60)
        assert len(set(texts)) == 60 and not held_out & set(texts)
        assert texts == prompts.training_prompts(mood, 60)


def test_drawing_in_chunks_is_drawing():
    scenes = make_scenes([21], babble(2)[None], [prompts.CALM])
    drawer = Drawer(False)
    drawer._draw = draw  # what would be compiled
    torch.testing.assert_close(drawer(scenes, 0, 3, 40, 32), draw_clip(scenes, 0, 3, 40, 32), rtol=0, atol=1e-6)


# Stages, at the smallest sizes that are still the same code


@pytest.fixture(scope="module")
def counted_time():
    """A tenth of a second passes whenever a stage looks at its clock, so that the machine decides nothing."""

    def elapsed(clock):
        vars(clock)["looks"] = vars(clock).get("looks", 0) + 1
        return vars(clock)["looks"] / 10

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Clock, "elapsed", elapsed)
        yield


@pytest.fixture(scope="module")
def stages(tmp_path_factory, counted_time):
    """A second or so of each stage; what they left, and what they said."""
    folder = tmp_path_factory.mktemp("stages")
    side, frames = 32, 17
    sounds = torch.stack([babble(12, seed) for seed in range(3)])
    vae.train(sounds, folder, 3, clips=2, side=side, width=8, frames=frames)
    vae.train(sounds, folder, 1, folder / vae.FILE, clips=2, side=side, width=8, frames=frames)
    whole = vae_network.Whole(vae.load(folder / vae.FILE, CPU, width=8).requires_grad_(False))
    torch.manual_seed(0)
    hearing = speech_encoder.build().eval()
    frozen.write(folder / "frozen")
    reading, sight = frozen.load(folder / "frozen", CPU)
    texts = latents.encode_texts(reading, 4)
    moods = [prompts.CALM, prompts.SMILING]
    trial = generating.make_trial(2, sounds, whole, hearing, sight, reading, moods, side, frames)
    data = latents.build(0, 2, sounds, whole, hearing, sight, side=side, frames=frames)
    config = replace(transformer_network.CONFIG, dim=64, num_heads=1, num_layers=1, ffn_dim=64)
    transformer.train(data, texts, folder, 2, whole, FaceReader(), {"moods": trial}, None, 2, config=config, looks=0)
    sampler = transformer.Sampler(data, texts, 2, drop=False)
    weights = {name: tensor.float() for name, tensor in load_file(folder / transformer.FILE).items()}
    lora.train(weights, sampler, folder, 2, lambda *_: None, batches=1, config=config)
    (folder / "before").mkdir()
    shutil.copy(folder / vae.FILE, folder / "before")
    data = latents.build(0, 2, sounds, whole, hearing, sight, side=side, frames=frames, keep_frames=True)
    sampler = transformer.Sampler(data, texts, 2, drop=False, spoil=False)
    with_lora = lora.with_file(weights, folder / lora.FILE)
    decoder.train(sampler, weights, with_lora, trial, FaceReader(), folder, 2, config=config, width=8)
    return folder, data, weights


def test_stages_leave_weights_and_pictures(stages):
    folder, data, _ = stages
    assert len(data) == 3 * len(data.image) == 6
    assert abs(float(data.latents.float().std()) - 1) < 0.2  # Wan's constants fit
    left = {path.name for path in folder.iterdir()}
    assert {vae.FILE, "vae.png", transformer.FILE, "transformer_moods.png", lora.FILE, "decoder_after.png"} <= left


def test_the_second_window_hears_what_follows_the_first(stages):
    _, data, _ = stages
    assert data.first.tolist() == [True, False, True, True, False, False]
    assert data.mood[0] == data.mood[1]
    torch.testing.assert_close(data.speech[1, :12], data.speech[0, 8:20], rtol=0, atol=0)  # 8 frames later
    motion, clean = data.motion.float(), data.latents[:, :, :3].float()
    torch.testing.assert_close(motion[data.first], clean[data.first], rtol=0, atol=0)
    assert (motion - clean)[1].abs().max() > 0  # as decoded, not as drawn
    sampler = transformer.Sampler(data, latents.Texts(torch.zeros(5, 1, 512, 64), torch.zeros(2, 512, 64)), 24)
    _, given, known, held, weight = sampler.draw()
    portrait = held.sum(dim=1) == 1
    assert portrait.any() and {int(count) for count in held.sum(dim=1)} == {1, 3}
    torch.testing.assert_close(known[portrait], given.reference[portrait][:, 4:])
    assert (weight[~portrait][:, 3].amax(dim=(1, 2)) > weight[~portrait][:, 4].amax(dim=(1, 2))).all()


def test_the_decoders_stage_changes_nothing_else(stages):
    folder, _, _ = stages
    before, after = (vae.load(path / vae.FILE, CPU, width=8).state_dict() for path in (folder / "before", folder))
    changed = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert {"conv2.weight", "decoder.conv1.weight"} <= changed
    assert all(name.startswith(("conv2.", "decoder.")) for name in changed)


def test_the_decoder_learns_from_the_frames_of_its_latents(stages):
    folder, data, weights = stages
    frames = data.frames[3].transpose(0, 1)[None].float() / 127.5 - 1
    whole = vae_network.Whole(vae.load(folder / "before" / vae.FILE, CPU, width=8))
    with torch.no_grad():
        far = (whole.encode(frames) - data.latents.float()).abs().mean(dim=(1, 2, 3, 4))
    assert far.argmin() == 3 and far[3] < 0.05  # as bytes they are almost the same
    texts = latents.Texts(torch.zeros(5, 1, 512, 64), torch.zeros(2, 512, 64))
    sampler = transformer.Sampler(data, texts, 12, drop=False, spoil=False)
    config = replace(transformer_network.CONFIG, dim=64, num_heads=1, num_layers=1, ffn_dim=64)
    network = transformer_network.Network(config, weights)
    whole.vae.requires_grad_(False)
    batch = decoder.Examples(sampler, network, network, whole).draw()
    assert batch.where.shape == (12, 17, 2, 2) and batch.drawn.shape == (12, 3, 17, 32, 32)
    assert batch.continues.any() and not batch.continues.all()
    held = whole.encode(batch.before)
    for k in range(12):
        pixels = batch.drawn[k].transpose(0, 1)
        clip = next(clip for clip in range(6) if torch.equal(pixels, data.frames[clip] / 127.5 - 1))
        assert batch.continues[k] == (clip % 3 == 1)
        if batch.continues[k]:  # it goes on from frames as they were decoded
            torch.testing.assert_close(batch.latents[k, :, :3], held[k], rtol=0, atol=1e-4)
            before = data.frames[clip - 1, -9:].transpose(0, 1) / 127.5 - 1
            assert (batch.before[k] - before).abs().mean() < 0.5


def test_the_amount_of_change_tells_motion_in_steps():
    times = torch.arange(17.0)
    evenly, in_steps = (
        at[None, None, :, None, None].expand(2, 3, 17, 24, 24) / 16 for at in (times, (times / 4).ceil() * 4)
    )
    weight = decoder.change_weights(17, torch.tensor([True, False]))
    assert decoder.amount_loss(evenly, evenly, weight) == 0
    assert decoder.amount_loss(evenly + 0.3, evenly, weight) < 1e-6  # another picture, as much change
    assert decoder.amount_loss(in_steps, evenly, weight) > 0.05
    assert weight[0, 8] > weight[1, 8] > weight[1, 9]  # a seam counts more, and so does the next latent's first frame
    where = torch.zeros(2, 17, 2, 2)
    assert decoder.change_loss(torch.ones(2, 3, 17, 24, 24), where, weight) == 0
    jump = torch.zeros(2, 3, 17, 24, 24)
    jump[0, :, 9:] = 0.1  # the same jump, at the seam of the first and within the second
    inside = jump.flip(0)
    assert decoder.change_loss(jump, where, weight) > decoder.change_loss(inside, where, weight) > 0


def test_a_loras_file_is_what_was_trained(tmp_path):
    torch.manual_seed(0)
    weights = {"blocks.0.self_attn.q.weight": torch.randn(32, 32), "head.head.weight": torch.randn(8, 32)}
    factors = lora.initial_factors(weights)
    factors = {name: torch.randn_like(factor).bfloat16().float() for name, factor in factors.items()}
    lora.save(factors, tmp_path / lora.FILE)
    read, added = lora.with_file(weights, tmp_path / lora.FILE), lora.with_lora(weights, factors)
    for name in weights:
        torch.testing.assert_close(read[name], added[name], rtol=1e-4, atol=1e-4)


def test_the_page_of_settings_has_every_row_in_both_languages():
    for path in settings_page.PAGES:
        page = path.read_text(encoding="utf-8")
        for group, rows in settings_page.GROUPS.items():
            lines = settings_page.table(page, group).group(1).splitlines()
            assert [line.split("`")[1] for line in lines] == [row.label for row in rows]
            for number in range(len(rows)):
                name = settings_page.picture_name(group, number)
                assert name in lines[number] and (settings_page.DOCS / name).is_file()


def test_the_loras_keys_fit_the_engine(stages):
    folder, _, weights = stages
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    found = read_lora(folder / lora.FILE, shapes)
    assert found.unmatched == () and "blocks.0.audio_cross_attn.kv_linear.weight" in found.changes


def test_the_shipped_model_comes_apart_and_together(tmp_path):
    assemble.read_back(FOLDER, tmp_path / "stages")
    assemble.write(tmp_path / "stages", tmp_path / "again")
    for path in FOLDER.rglob("*.safetensors"):
        if "multi" in path.parts:  # made by a stage of its own, of this one
            continue
        ours, theirs = load_file(path), load_file(tmp_path / "again" / path.relative_to(FOLDER))
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    file = Path("Wan2.1-I2V-14B-480P") / "Wan2.1_VAE.pth"
    ours, theirs = (torch.load(folder / file, weights_only=True) for folder in (FOLDER, tmp_path / "again"))
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=2e-3, atol=2e-3)
