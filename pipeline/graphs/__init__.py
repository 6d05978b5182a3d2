"""ComfyUI graphs as settings: our own nodes' and other packs'. Text in, settings out; without PyTorch."""
