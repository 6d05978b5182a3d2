"""Graphs and finished videos as commands: reading ComfyUI's files, mapping nodes to settings, quoting for a shell."""
