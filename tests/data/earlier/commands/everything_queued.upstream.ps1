# For MeiGen's own generate_infinitetalk.py, in its folder. It draws other noise for the same seed.
# --quant fp8 without --quant_dir is not there: it reads quantised files only, so it runs bf16.
# --sample_solver unipc is not there: it runs Euler.
# A negative prompt of one's own is not there: it uses the one the models were tuned with.
# --blocks_to_swap 3 is not there: --num_persistent_param_in_dit 0 stands for it.
# --base_seed 1099511627776 is too large for it.
# --lora_mode side is not there.
# --seam_frames 8 is not there.
# --sample_audio_guide_steps 6 is not there.
Set-Content -Encoding ascii -LiteralPath 'one_input.json' -Value '{"prompt": "\u4e00\u4e2a\u4eba", "cond_video": "<CLONE>/assets/drawn_portrait.png", "cond_audio": {"person1": "<CLONE>/assets/speech.wav"}}'
python generate_infinitetalk.py `
    --size 'infinitetalk-720' `
    --frame_num '41' `
    --max_frame_num '41' `
    --ckpt_dir '<CLONE>/assets/demo_model/Wan2.1-I2V-14B-480P' `
    --infinitetalk_dir '<CLONE>/assets/demo_model/InfiniteTalk/single/infinitetalk.safetensors' `
    --wav2vec_dir '<CLONE>/assets/demo_model/chinese-wav2vec2-base' `
    --lora_dir 'weights/a.safetensors' 'weights/b.safetensors' `
    --lora_scale '0.3' '-1.0' `
    --offload_model false `
    --t5_cpu `
    --save_file one `
    --base_seed '0' `
    --input_json 'one_input.json' `
    --motion_frame '5' `
    --sample_steps '12' `
    --sample_shift '3.5' `
    --sample_text_guide_scale '4.5' `
    --sample_audio_guide_scale '3.25' `
    --num_persistent_param_in_dit '0' `
    --use_teacache `
    --teacache_thresh '0.35' `
    --use_apg `
    '--apg_momentum=-0.5' `
    --apg_norm_threshold '27.0' `
    --color_correction_strength '0.25'
