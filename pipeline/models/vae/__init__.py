"""The Wan VAE: frames to latents and back, in exact tiles where memory is short."""
