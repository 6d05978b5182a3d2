"""Graphs of Kijai's ComfyUI-WanVideoWrapper."""
