# For MeiGen's own generate_infinitetalk.py, in its folder. It draws other noise for the same seed.
# It takes the base from a folder as Wan-AI publishes it, whatever file is meant here: weights/Wan2.1-I2V-14B-480P.
# It reads --quant_dir only with the .json of the same name and the quantised text encoder beside it.
# It ignores --lora_dir where --quant is given: the video is made without the LoRA. Leave out --quant and --quant_dir to have it.
# It takes --wav2vec_dir as a folder in the layout of chinese-wav2vec2-base, not as a file.
# --text_encoder weights/umt5_xxl_fp8_e4m3fn_scaled.safetensors is not there.
# --clip_vision weights/clip_vision_h.safetensors is not there.
# --vae weights/wan_2.1_vae.safetensors is not there.
cat > InfiniteTalk_input.json <<'EOF'
{
    "prompt": "A person is talking to the camera.",
    "cond_video": "person.mp4",
    "cond_audio": {
        "person1": "speech.wav"
    }
}
EOF
python generate_infinitetalk.py \
    --max_frame_num 1000000 \
    --ckpt_dir weights/Wan2.1-I2V-14B-480P \
    --quant_dir weights/InfiniteTalk/quant_models/infinitetalk_single_fp8.safetensors \
    --wav2vec_dir weights/wav2vec2-chinese-base_fp16.safetensors \
    --lora_dir weights/Wan2.1_I2V_14B_FusionX_LoRA.safetensors \
    --lora_scale 0.6 \
    --save_file InfiniteTalk \
    --input_json InfiniteTalk_input.json \
    --mode streaming \
    --sample_steps 8 \
    --sample_shift 7.0 \
    --sample_text_guide_scale 1.5 \
    --sample_audio_guide_scale 3.0 \
    --num_persistent_param_in_dit 0 \
    --quant fp8
