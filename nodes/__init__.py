"""The engine in ComfyUI: thin nodes, one file for each. The only room that imports ComfyUI."""
