"""A graph of another pack, given to the page's export command."""

import json
import shlex

from infinitetalk.pipeline.settings.flags import parse
from infinitetalk.tests.support.places import GRAPHS

MODELS = {  # where that pack's users have the files
    "dit_path": "diffusion_models/Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ.safetensors",
    "infinitetalk_dir": "diffusion_models/InfiniteTalk/Wan2_1-InfiniTetalk-Single_fp16.safetensors",
    "text_encoder": "text_encoders/umt5-xxl-enc-bf16.safetensors",
    "clip_vision": "clip_vision/clip_vision_vit_h.safetensors",
    "vae": "vae/Wan2_1_VAE_bf16.safetensors",
    "wav2vec_dir": "transformers/TencentGameMate/chinese-wav2vec2-base/config.json",
}


def export(host, prompt):
    return json.loads(host.post("/infinitetalk/export", {"prompt": prompt, "shell": "sh"}))


def test_a_graph_of_kijais_nodes_becomes_a_command_with_this_servers_files(host, base):
    prompt = json.loads((GRAPHS / "kijai_image_api.json").read_text(encoding="utf-8"))
    assert "is not in models/" in export(host, prompt)["error"]
    paths = [base / "models" / name for name in MODELS.values()]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    answer = export(host, prompt)
    for path in paths:  # empty ones are in the way of other tests
        path.unlink()
    words = shlex.split(answer["command"].replace("\\\n", " "))
    found = parse(words[2:])
    expected = {setting: base / "models" / name for setting, name in MODELS.items()}
    # the node would take the one it downloaded, but the usual name in ComfyUI's own folder comes first
    expected["wav2vec_dir"] = base / "models" / "audio_encoders" / "chinese-wav2vec2-base"
    assert {setting: getattr(found, setting) for setting in expected} == expected
    assert found.blocks_to_swap == 30 and found.prompt == "一个人对着镜头激情唱歌"
    assert any("AudioSeparation" in note for note in answer["notes"])


def test_windows_of_comfyuis_own_nodes_are_one_video(host):
    prompt = json.loads((GRAPHS / "native_two_windows_api.json").read_text(encoding="utf-8"))
    assert "is not in models/" in export(host, prompt)["error"]  # not: several samplers
