python generate_infinitetalk.py `
    --preset '03_balanced' `
    --video 'person.mp4' `
    --audio 'speech.wav' `
    --prompt 'A person is talking to the camera.' `
    --wav2vec_dir 'weights/wav2vec2-chinese-base_fp16.safetensors' `
    --text_encoder 'weights/umt5_xxl_fp8_e4m3fn_scaled.safetensors' `
    --clip_vision 'weights/clip_vision_h.safetensors' `
    --vae 'weights/wan_2.1_vae.safetensors' `
    --save_file InfiniteTalk
