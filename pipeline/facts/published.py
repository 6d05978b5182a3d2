"""Which published file is which: where it comes from, how large it is, its hash and licence, and where it is put.

One table, from which `infinitetalk download`, every sentence about what is missing, docs/models.md, README's lines and
the bundled workflows come. Knows nothing of what is on this machine or what a run needs, and fetches nothing.

Sizes and hashes are what the hub tells publicly, written down by many who checked their downloads; where none was to be
found there is None, and the hub's own word counts. Hugging Face's hash of a large file is its SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

HUB = "https://huggingface.co"
APACHE = "Apache-2.0"
UNSAID = "none stated"  # by the publisher; the models that it was made from are under Apache-2.0


@dataclass(frozen=True)
class File:
    """A file of a repository.

    Attributes:
        path: in the repository.
        size: bytes; None if only the hub knows.
        sha256: None if only the hub knows.
    """

    path: str
    size: int | None = None
    sha256: str | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Part:
    """Files that are of use together, under the name that `infinitetalk download` takes.

    Attributes:
        what: what it is, in a few words.
        flag: the setting that names it, or the folder that it is in.
        about: bytes of all files, rounded.
        place: its folder under the weights folder; "" is that folder itself, None if only ComfyUI takes it.
        comfy: its folder under ComfyUI's models; None if only the command line takes it.
    """

    name: str
    what: str
    flag: str
    repo: str
    files: tuple[File, ...]
    licence: str
    about: int
    place: str | None = None
    comfy: str | None = None

    @property
    def size(self) -> int:
        """Bytes of all files, to the byte where all are known."""
        known = [file.size for file in self.files if file.size is not None]
        return sum(known) if len(known) == len(self.files) else self.about

    @property
    def address(self) -> str:
        """The repository's page."""
        return f"{HUB}/{self.repo}"

    def path_in(self, folder: str, file: File) -> PurePosixPath:
        """Where a file lies: in a folder of the part's own as in the repository, in a shared one by its bare name."""
        shared = folder in ("", *_SHARED)
        return PurePosixPath(folder, file.name if shared else file.path)

    def url(self, file: File) -> str:
        """Where a browser finds it."""
        return f"{self.address}/resolve/main/{file.path}"


_SHARED = "diffusion_models", "text_encoders", "clip_vision", "vae", "audio_encoders", "loras"  # ComfyUI's folders
BASE_FOLDER, BASE_REPO = "Wan2.1-I2V-14B-480P", "Wan-AI/Wan2.1-I2V-14B-480P"
INFINITETALK_FILE = "InfiniteTalk/single/infinitetalk.safetensors"
SPEECH_FOLDER = "chinese-wav2vec2-base"

_COMFY_BASE = f"diffusion_models/{BASE_FOLDER}"
_REPACKED = "Comfy-Org/Wan_2.1_ComfyUI_repackaged"
_SHARDS = tuple(File(f"diffusion_pytorch_model-{number:05}-of-00007.safetensors") for number in range(1, 8))
_ROWS = (
    Part(
        "transformer",
        "the Wan 2.1 base's transformer, seven shards",
        "ckpt_dir",
        BASE_REPO,
        (File("config.json"), *_SHARDS, File("diffusion_pytorch_model.safetensors.index.json")),
        APACHE,
        65_600_000_000,
        BASE_FOLDER,
        _COMFY_BASE,
    ),
    Part(
        "text_encoder",
        "umT5 in bf16",
        "ckpt_dir",
        BASE_REPO,
        (
            File(
                "models_t5_umt5-xxl-enc-bf16.pth",
                11_361_920_418,
                "7cace0da2b446bbbbc57d031ab6cf163a3d59b366da94e5afe36745b746fd81d",
            ),
        ),
        APACHE,
        11_361_920_418,
        BASE_FOLDER,
        _COMFY_BASE,
    ),
    Part(
        "clip_vision",
        "CLIP, for the picture",
        "ckpt_dir",
        BASE_REPO,
        (
            File(
                "models_clip_open-clip-xlm-roberta-large-vit-huge-14.pth",
                4_772_359_047,
                "628c9998b613391f193eb67ff68da9667d75f492911e4eb3decf23460a158c38",
            ),
        ),
        APACHE,
        4_772_359_047,
        BASE_FOLDER,
        _COMFY_BASE,
    ),
    Part(
        "vae",
        "the Wan VAE",
        "ckpt_dir",
        BASE_REPO,
        (
            File(
                "Wan2.1_VAE.pth",
                507_609_880,
                "38071ab59bd94681c686fa51d75a1968f64e470262043be31f7a094e442fd981",
            ),
        ),
        APACHE,
        507_609_880,
        BASE_FOLDER,
        _COMFY_BASE,
    ),
    Part(
        "tokenizer",
        "umT5's tokenizer",
        "ckpt_dir",
        BASE_REPO,
        (
            File(
                "google/umt5-xxl/special_tokens_map.json",
                6_623,
                "7b8a9f5040adb67b5805abdfd42c1f8d0f3d0e711f10726580eb3789cd0ad61d",
            ),
            File(
                "google/umt5-xxl/spiece.model",
                4_548_313,
                "e3909a67b780650b35cf529ac782ad2b6b26e6d1f849d3fbb6a872905f452458",
            ),
            File(
                "google/umt5-xxl/tokenizer.json",
                16_837_417,
                "6e197b4d3dbd71da14b4eb255f4fa91c9c1f2068b20a2de2472967ca3d22602b",
            ),
            File(
                "google/umt5-xxl/tokenizer_config.json",
                61_728,
                "ed9a3a8b0faa71a70a32847e0435fe036e6e112d4df4edb7bb48a921e344dc05",
            ),
        ),
        APACHE,
        21_454_081,
        BASE_FOLDER,
        _COMFY_BASE,
    ),
    Part(
        "infinitetalk",
        "InfiniteTalk's audio layers, one speaker",
        "infinitetalk_dir",
        "MeiGen-AI/InfiniteTalk",
        (File("single/infinitetalk.safetensors"),),
        APACHE,
        10_000_000_000,
        "InfiniteTalk",
        "diffusion_models",
    ),
    Part(
        "wav2vec",
        "the speech encoder",
        "wav2vec_dir",
        "TencentGameMate/chinese-wav2vec2-base",
        (
            File("config.json"),
            File(
                "preprocessor_config.json",
                160,
                "c1707926644954affc391ab09ccfaf470ccd80af218d11350991090711441c09",
            ),
            File(
                "pytorch_model.bin",
                380_261_837,
                "be2da40c9e7ae26bfc904a3ed79ebb9e8f060bec6dba85d6a6ae86114bc38901",
            ),
        ),
        "MIT",
        380_000_000,
        SPEECH_FOLDER,
        None,
    ),
    Part(
        "voice",
        "Mel-Band RoFormer in fp16 by Kijai, for speech with music",
        "separate_voice",
        "Kijai/MelBandRoFormer_comfy",
        (File("MelBandRoformer_fp16.safetensors"),),
        UNSAID,
        456_000_000,
        "",
        "diffusion_models",
    ),
    Part(
        "fp8",
        "base and InfiniteTalk in one, in fp8 by MeiGen",
        "quant_dir",
        "MeiGen-AI/InfiniteTalk",
        (File("quant_models/infinitetalk_single_fp8.safetensors"), File("quant_models/infinitetalk_single_fp8.json")),
        APACHE,
        19_500_000_000,
        "InfiniteTalk",
        "diffusion_models/InfiniteTalk",
    ),
    Part(
        "t5_fp8",
        "umT5 in fp8 by MeiGen, which goes with fp8",
        "text_encoder",
        "MeiGen-AI/InfiniteTalk",
        (File("quant_models/t5_fp8.safetensors"), File("quant_models/t5_map_fp8.json")),
        APACHE,
        6_730_000_000,
        "InfiniteTalk",
        None,
    ),
    Part(
        "lightx2v",
        "LoRA for 4 steps (presets 01, 02, 05, 06)",
        "lora_dir",
        "Kijai/WanVideo_comfy",
        (
            File(
                "Lightx2v/lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors",
                None,
                "5c324ada09cfa447844f5d9a57240463a515de38270ef40c7513d74be3e64e72",
            ),
        ),
        UNSAID,
        1_500_000_000,
        "",
        "loras",
    ),
    Part(
        "lightx2v_t2v",
        "LoRA for 4 steps, made for text to video: stands in for lightx2v",
        "lora_dir",
        "Kijai/WanVideo_comfy",
        (File("Wan21_T2V_14B_lightx2v_cfg_step_distill_lora_rank32.safetensors"),),
        UNSAID,
        317_000_000,
        "",
        "loras",
    ),
    Part(
        "fusionx",
        "LoRA for 8 steps (preset 03)",
        "lora_dir",
        "vrgamedevgirl84/Wan14BT2VFusioniX",
        (File("FusionX_LoRa/Wan2.1_I2V_14B_FusionX_LoRA.safetensors"),),
        UNSAID,
        371_000_000,
        "",
        "loras",
    ),
    Part(
        "kijai_fp8",
        "the base in fp8 by Kijai, for the bundled workflow of a picture",
        "dit_path",
        "Kijai/WanVideo_comfy_fp8_scaled",
        (
            File(
                "I2V/Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ.safetensors",
                None,
                "2ff922282cd84589702e6e8c26e083d1160bfc2b217dd44e1ae2688441dc495d",
            ),
        ),
        APACHE,
        17_000_000_000,
        None,
        "diffusion_models",
    ),
    Part(
        "kijai_infinitetalk",
        "InfiniteTalk in fp16 by Kijai, for the same",
        "infinitetalk_dir",
        "Kijai/WanVideo_comfy",
        (
            File(
                "InfiniteTalk/Wan2_1-InfiniTetalk-Single_fp16.safetensors",
                5_125_258_232,
                "bf212c5c647eaf1c019b2158d2edf4a360d97e38b746c4bac994fee485e09fc3",
            ),
        ),
        UNSAID,
        5_125_258_232,
        None,
        "diffusion_models",
    ),
    Part(
        "umt5_fp8",
        "umT5 in fp8 with its tokenizer, by Comfy-Org",
        "text_encoder",
        _REPACKED,
        (
            File(
                "split_files/text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors",
                6_735_906_897,
                "c3355d30191f1f066b26d93fba017ae9809dce6c627dda5f6a66eaa651204f68",
            ),
        ),
        APACHE,
        6_735_906_897,
        None,
        "text_encoders",
    ),
    Part(
        "clip_vision_h",
        "CLIP's half for the picture, by Comfy-Org",
        "clip_vision",
        _REPACKED,
        (
            File(
                "split_files/clip_vision/clip_vision_h.safetensors",
                1_264_219_396,
                "64a7ef761bfccbadbaa3da77366aac4185a6c58fa5de5f589b42a65bcc21f161",
            ),
        ),
        APACHE,
        1_264_219_396,
        None,
        "clip_vision",
    ),
    Part(
        "wan_vae",
        "the Wan VAE in bf16, by Comfy-Org",
        "vae",
        _REPACKED,
        (
            File(
                "split_files/vae/wan_2.1_vae.safetensors",
                253_815_318,
                "2fc39d31359a4b0a64f55876d8ff7fa8d780956ae2cb13463b0223e15148976b",
            ),
        ),
        APACHE,
        253_815_318,
        None,
        "vae",
    ),
    Part(
        "wav2vec_fp16",
        "the speech encoder in fp16 by Kijai",
        "wav2vec_dir",
        "Kijai/wav2vec2_safetensors",
        (
            File(
                "wav2vec2-chinese-base_fp16.safetensors",
                190_115_368,
                "000813e441020f18cff844c969d2d5d4adc2a5ce46b2db1f23950b05d88805b4",
            ),
        ),
        UNSAID,
        190_115_368,
        None,
        "audio_encoders",
    ),
)
PARTS: dict[str, Part] = {row.name: row for row in _ROWS}
