# For MeiGen's own generate_infinitetalk.py, in its folder. It draws other noise for the same seed.
# --size 192x192 is not there: infinitetalk-480 keeps the reference's aspect at its own number of pixels.
# --seam_frames 4 is not there.
cat > InfiniteTalk_input.json <<'EOF'
{
    "prompt": "A woman is talking to the camera.",
    "cond_video": "<CLONE>/assets/drawn_portrait.png",
    "cond_audio": {
        "person1": "<CLONE>/assets/speech.wav"
    }
}
EOF
python generate_infinitetalk.py \
    --max_frame_num 1000000 \
    --ckpt_dir <CLONE>/assets/demo_model/Wan2.1-I2V-14B-480P \
    --infinitetalk_dir <CLONE>/assets/demo_model/InfiniteTalk/single/infinitetalk.safetensors \
    --wav2vec_dir <CLONE>/assets/demo_model/chinese-wav2vec2-base \
    --save_file InfiniteTalk \
    --input_json InfiniteTalk_input.json \
    --mode streaming \
    --sample_steps 4 \
    --sample_shift 5.0 \
    --sample_text_guide_scale 1.0 \
    --sample_audio_guide_scale 1.0
