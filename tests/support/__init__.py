"""What tests share: small checkpoints in the real formats, a ComfyUI, a browser."""
