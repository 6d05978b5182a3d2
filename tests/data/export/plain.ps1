python generate_infinitetalk.py `
    --image 'C:\Bob''s pictures\女孩.png' `
    --audio 'a.wav' `
    --prompt 'She sings, 100 % sure; it''s $5 `now`' `
    --ckpt_dir 'D:\my weights\Wan2.1-I2V-14B-480P' `
    --save_file out
