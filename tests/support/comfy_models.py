"""Small files under the names that the bundled workflows tell users to download, in the same formats."""

from pathlib import Path

from safetensors.torch import save_file

from ...scripts.save_workflows import URLS
from . import lora_files, other_layouts, random_checkpoint
from .random_tokenizer import write_tokenizer


def write(models: Path, folder: Path, sizes: random_checkpoint.Sizes) -> set[str]:
    """Put them where the user would; ``folder`` is for what is made on the way."""
    vocabulary = write_tokenizer(folder / "tokenizer")
    spiece = (folder / "tokenizer" / "spiece.model").read_bytes()
    base = random_checkpoint.transformer_weights(sizes)
    audio = random_checkpoint.infinitetalk_weights(sizes)
    text = random_checkpoint.text_encoder_weights(sizes, vocabulary)
    contents = {
        "Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ.safetensors": other_layouts.old_scaled_fp8(
            base, keep=other_layouts.KIJAI_KEEPS
        ),
        "Wan2_1-InfiniTetalk-Single_fp16.safetensors": audio,
        "umt5_xxl_fp8_e4m3fn_scaled.safetensors": other_layouts.comfy_text_encoder(text, spiece),
        "clip_vision_h.safetensors": other_layouts.hugging_face_image_encoder(
            random_checkpoint.image_encoder_weights(sizes)
        ),
        "wan_2.1_vae.safetensors": random_checkpoint.vae_weights(sizes),
        "wav2vec2-chinese-base_fp16.safetensors": random_checkpoint.speech_encoder_weights(sizes),
        "lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors": lora_files.lightx2v_i2v(sizes),
        "Wan2.1_I2V_14B_FusionX_LoRA.safetensors": lora_files.fusionx(sizes),
    }
    for name, tensors in contents.items():
        path = Path(models) / URLS[name][0] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path)
    return set(contents)
