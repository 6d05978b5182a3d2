"""Measuring a video of the demo's drawn faces against its speech."""
