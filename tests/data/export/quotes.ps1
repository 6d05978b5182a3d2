Set-Content -Encoding ascii -LiteralPath 'out_input.json' -Value '{"prompt": "She says \"it\u2019s\"\nand sings\\", "negative_prompt": ""}'
python generate_infinitetalk.py `
    --input_json 'out_input.json' `
    --image 'C:\Bob''s pictures\女孩.png' `
    --audio 'a.wav' `
    --ckpt_dir 'D:\my weights\Wan2.1-I2V-14B-480P' `
    --save_file out
