python generate_infinitetalk.py `
    --image 'portrait.png' `
    --audio 'speech.wav' `
    --prompt 'A woman is talking to the camera.' `
    --negative_prompt blurred `
    --ckpt_dir '/opt/ComfyUI/custom_nodes/InfiniteTalk/assets/demo_model/Wan2.1-I2V-14B-480P' `
    --infinitetalk_dir '/opt/ComfyUI/custom_nodes/InfiniteTalk/assets/demo_model/InfiniteTalk/single/infinitetalk.safetensors' `
    --wav2vec_dir '/opt/ComfyUI/custom_nodes/InfiniteTalk/assets/demo_model/chinese-wav2vec2-base' `
    --lora_dir '/opt/ComfyUI/models/loras/demo_lora_4_steps.safetensors' '/opt/ComfyUI/models/loras/demo_lora_4_steps.safetensors' `
    '--lora_scale=0.7' `
    '--lora_scale=-0.2' `
    --size '64x64' `
    --frame_num '17' `
    --motion_frame '5' `
    --max_frame_num '17' `
    --color_correction_strength '0.5' `
    --seam_frames '4' `
    --sample_steps '2' `
    --sample_shift '5.0' `
    --sample_text_guide_scale '1.0' `
    --sample_audio_guide_scale '2.0' `
    --base_seed '7' `
    --device cpu `
    --save_file '<EARLIER>/finished_in_comfyui_again' `
    --crf '30'
