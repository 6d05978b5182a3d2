# For MeiGen's own generate_infinitetalk.py, in its folder. It draws other noise for the same seed.
# --size 64x64 is not there: infinitetalk-480 keeps the reference's aspect at its own number of pixels.
# A negative prompt of one's own is not there: it uses the one the models were tuned with.
# --seam_frames 4 is not there.
Set-Content -Encoding ascii -LiteralPath 'finished_again_input.json' -Value '{"prompt": "A woman is talking to the camera.", "cond_video": "assets/drawn_portrait.png", "cond_audio": {"person1": "assets/speech.wav"}}'
python generate_infinitetalk.py `
    --frame_num '17' `
    --max_frame_num '17' `
    --ckpt_dir 'assets/demo_model/Wan2.1-I2V-14B-480P' `
    --infinitetalk_dir 'assets/demo_model/InfiniteTalk/single/infinitetalk.safetensors' `
    --wav2vec_dir 'assets/demo_model/chinese-wav2vec2-base' `
    --lora_dir 'assets/demo_model/demo_lora_4_steps.safetensors' `
    --lora_scale '0.5' `
    --save_file '<EARLIER>/finished_again' `
    --base_seed '11' `
    --input_json 'finished_again_input.json' `
    --motion_frame '5' `
    --mode streaming `
    --sample_steps '2' `
    --sample_shift '7.0' `
    --sample_text_guide_scale '1.0' `
    --sample_audio_guide_scale '2.0'
