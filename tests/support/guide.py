"""The guide's command line, and the LoRAs that it names."""

from __future__ import annotations

LIGHTX2V = "lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors"
FUSIONX = "Wan2.1_I2V_14B_FusionX_LoRA.safetensors"
GUIDE = """
    --ckpt_dir weights/Wan2.1-I2V-14B-480P
    --wav2vec_dir weights/chinese-wav2vec2-base
    --infinitetalk_dir weights/InfiniteTalk/single/infinitetalk.safetensors
    --lora_dir weights/lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors
    --lora_scale 0.8
    --quant fp8
    --quant_dir weights/InfiniteTalk/quant_models/infinitetalk_single_fp8.safetensors
    --input_json examples/single_example_image.json
    --size infinitetalk-480
    --sample_steps 4
    --sample_shift 11.0
    --sample_text_guide_scale 1.0
    --sample_audio_guide_scale 2.0
    --mode streaming
    --frame_num 81
    --motion_frame 9
    --num_persistent_param_in_dit 0
    --save_file output_fast
"""
