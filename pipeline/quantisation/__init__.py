"""How weight matrices are kept, read back, changed by a LoRA, and multiplied."""
