"""The engine in ComfyUI: thin nodes, one file per family. The only place that imports ComfyUI."""
