"""Where weights live while a model runs: on the card, in pinned host memory, or in their file."""
