python generate_infinitetalk.py `
    --preset '02_comfyui_equivalent' `
    --image 'C:\Bob''s pictures\女孩.png' `
    --audio 'a.wav' `
    --prompt '一个人对着镜头激情唱歌' `
    --ckpt_dir 'D:\my weights\Wan2.1-I2V-14B-480P'
