# For MeiGen's own generate_infinitetalk.py, in its folder. It draws other noise for the same seed.
# It takes the base from a folder as Wan-AI publishes it, whatever file is meant here: weights/Wan2.1-I2V-14B-480P.
# It takes --wav2vec_dir as a folder in the layout of chinese-wav2vec2-base, not as a file.
# --sample_solver flowmatch_distill is not there: it runs Euler, whose last of 4 steps does nearly nothing.
# --size 640x640 is not there: infinitetalk-480 keeps the reference's aspect at its own number of pixels.
# A negative prompt of one's own is not there: it uses the one the models were tuned with.
# --dit_path weights/wan2.1_i2v_480p_14B_fp16.safetensors is not there.
# --text_encoder weights/umt5_xxl_fp8_e4m3fn_scaled.safetensors is not there.
# --clip_vision weights/clip_vision_h.safetensors is not there.
# --vae weights/wan_2.1_vae.safetensors is not there.
cat > ComfyUI_input.json <<'EOF'
{
    "prompt": "A woman is talking.",
    "cond_video": "portrait.png",
    "cond_audio": {
        "person1": "speech.wav"
    }
}
EOF
python generate_infinitetalk.py \
    --max_frame_num 153 \
    --ckpt_dir weights/Wan2.1-I2V-14B-480P \
    --infinitetalk_dir weights/wan2.1_infiniteTalk_single_fp16.safetensors \
    --wav2vec_dir weights/wav2vec2-chinese-base_fp16.safetensors \
    --lora_dir weights/lightx2v_I2V_14B_480p_cfg_step_distill_rank64_bf16.safetensors \
    --lora_scale 1.0 \
    --save_file ComfyUI \
    --base_seed 5 \
    --input_json ComfyUI_input.json \
    --mode streaming \
    --sample_steps 4 \
    --sample_shift 11.0 \
    --sample_text_guide_scale 1.0 \
    --sample_audio_guide_scale 1.0 \
    --color_correction_strength 0.0
