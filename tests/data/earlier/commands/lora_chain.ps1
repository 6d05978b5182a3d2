python generate_infinitetalk.py `
    --image 'portrait.png' `
    --audio 'speech.wav' `
    --prompt '一个人对着镜头激情唱歌' `
    --infinitetalk_dir 'weights/Wan2_1-InfiniTetalk-Single_fp16.safetensors' `
    --wav2vec_dir 'weights/wav2vec2-chinese-base_fp16.safetensors' `
    --dit_path 'weights/Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ.safetensors' `
    --text_encoder 'weights/umt5_xxl_fp8_e4m3fn_scaled.safetensors' `
    --clip_vision 'weights/clip_vision_h.safetensors' `
    --vae 'weights/wan_2.1_vae.safetensors' `
    --lora_dir 'weights/style/Wan2.1_I2V_14B_FusionX_LoRA.safetensors' 'weights/lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors' `
    '--lora_scale=-0.25' `
    '--lora_scale=0.8' `
    --max_frame_num '1000' `
    --sample_steps '4' `
    --sample_shift '11.0' `
    --sample_solver flowmatch_distill `
    --sample_text_guide_scale '1.0' `
    --sample_audio_guide_scale '2.0' `
    --base_seed '1' `
    --offload_model true `
    --blocks_to_swap '30' `
    --save_file InfiniteTalk
