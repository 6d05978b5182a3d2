"""The networks: transformer, VAE, and the encoders of speech, text and picture."""
