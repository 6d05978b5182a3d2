Set-Content -Encoding ascii -LiteralPath 'one_input.json' -Value '{"negative_prompt": ""}'
python generate_infinitetalk.py `
    --input_json 'one_input.json' `
    --image '<CLONE>/assets/drawn_portrait.png' `
    --audio '<CLONE>/assets/speech.wav' `
    --prompt '一个人' `
    --ckpt_dir '<CLONE>/assets/demo_model/Wan2.1-I2V-14B-480P' `
    --infinitetalk_dir '<CLONE>/assets/demo_model/InfiniteTalk/single/infinitetalk.safetensors' `
    --wav2vec_dir '<CLONE>/assets/demo_model/chinese-wav2vec2-base' `
    --lora_dir 'weights/a.safetensors' 'weights/b.safetensors' `
    '--lora_scale=0.3' `
    '--lora_scale=-1.0' `
    --lora_mode side `
    --quant fp8 `
    --quant_matmul off `
    --size 'infinitetalk-720' `
    --mode clip `
    --frame_num '41' `
    --motion_frame '5' `
    --max_frame_num '500' `
    --color_correction_strength '0.25' `
    --seam_frames '8' `
    --sample_steps '12' `
    --sample_shift '3.5' `
    --sample_solver unipc `
    --sample_text_guide_scale '4.5' `
    --sample_audio_guide_scale '3.25' `
    --sample_audio_guide_steps '6' `
    --base_seed '1099511627776' `
    --use_apg `
    '--apg_momentum=-0.5' `
    --apg_norm_threshold '27.0' `
    --use_teacache `
    --teacache_thresh '0.35' `
    --offload_model false `
    --t5_cpu `
    --blocks_to_swap '3' `
    --dtype bf16 `
    --vae_dtype fp32 `
    --attention sdpa `
    --kernels plain `
    --save_file one `
    --crf '0'
