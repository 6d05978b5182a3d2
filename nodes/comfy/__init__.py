"""ComfyUI as the host: its folders, memory, routes and widgets. The only modules that know its internals."""
