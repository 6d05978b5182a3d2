# For MeiGen's own generate_infinitetalk.py, in its folder. It draws other noise for the same seed.
# It takes the base from a folder as Wan-AI publishes it, whatever file is meant here: weights/Wan2.1-I2V-14B-480P.
# --quant fp8 without --quant_dir is not there: it reads quantised files only, so it runs bf16.
# --sample_solver flowmatch_distill is not there: it runs Euler, whose last of 4 steps does nearly nothing.
# A negative prompt of one's own is not there: it uses the one the models were tuned with.
# --blocks_to_swap 7 is not there: --num_persistent_param_in_dit 0 stands for it.
# --dit_path weights/Wan2_1-I2V-14B-480p_fp8_e4m3fn_scaled_KJ.safetensors is not there.
# --text_encoder weights/umt5-xxl-enc-bf16.safetensors is not there.
# --clip_vision weights/clip_vision_vit_h.safetensors is not there.
# --vae weights/Wan2_1_VAE_bf16.safetensors is not there.
cat > 'infinitetalk数字人_input.json' <<'EOF'
{
    "prompt": "一个人对着镜头激情唱歌",
    "cond_video": "女孩.png",
    "cond_audio": {
        "person1": "广告解说旁白女声.mp3"
    }
}
EOF
python generate_infinitetalk.py \
    --max_frame_num 1000000 \
    --ckpt_dir weights/Wan2.1-I2V-14B-480P \
    --infinitetalk_dir weights/InfiniteTalk/Wan2_1-InfiniTetalk-Single_fp16.safetensors \
    --wav2vec_dir weights/chinese-wav2vec2-base \
    --lora_dir weights/lightx2v_I2V_14B_480p_cfg_step_distill_rank128_bf16.safetensors \
    --lora_scale 0.25 \
    --offload_model true \
    --save_file 'infinitetalk数字人' \
    --base_seed 1 \
    --input_json 'infinitetalk数字人_input.json' \
    --motion_frame 25 \
    --mode streaming \
    --sample_steps 4 \
    --sample_shift 11.0 \
    --sample_text_guide_scale 1.0 \
    --sample_audio_guide_scale 1.0 \
    --num_persistent_param_in_dit 0
