# For MeiGen's own generate_infinitetalk.py, in its folder. It draws other noise for the same seed.
# It takes the base from a folder as Wan-AI publishes it, whatever file is meant here: weights/Wan2.1-I2V-14B-480P.
# It takes --wav2vec_dir as a folder in the layout of chinese-wav2vec2-base, not as a file.
# --sample_solver flowmatch_distill is not there: it runs Euler, whose last of 4 steps does nearly nothing.
# --blocks_to_swap 30 is not there: --num_persistent_param_in_dit 0 stands for it.
# --dit_path weights/Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ.safetensors is not there.
# --text_encoder weights/umt5_xxl_fp8_e4m3fn_scaled.safetensors is not there.
# --clip_vision weights/clip_vision_h.safetensors is not there.
# --vae weights/wan_2.1_vae.safetensors is not there.
Set-Content -Encoding ascii -LiteralPath 'InfiniteTalk_input.json' -Value '{"prompt": "\u4e00\u4e2a\u4eba\u5bf9\u7740\u955c\u5934\u6fc0\u60c5\u5531\u6b4c", "cond_video": "portrait.png", "cond_audio": {"person1": "speech.wav"}}'
python generate_infinitetalk.py `
    --ckpt_dir 'weights/Wan2.1-I2V-14B-480P' `
    --infinitetalk_dir 'weights/Wan2_1-InfiniTetalk-Single_fp16.safetensors' `
    --wav2vec_dir 'weights/wav2vec2-chinese-base_fp16.safetensors' `
    --lora_dir 'weights/lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors' `
    --lora_scale '0.8' `
    --offload_model true `
    --save_file InfiniteTalk `
    --base_seed '1' `
    --input_json 'InfiniteTalk_input.json' `
    --mode streaming `
    --sample_steps '4' `
    --sample_shift '11.0' `
    --sample_text_guide_scale '1.0' `
    --sample_audio_guide_scale '2.0' `
    --num_persistent_param_in_dit '0'
