"""Graphs of ComfyUI's own nodes for InfiniteTalk."""
