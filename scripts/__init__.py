"""Scripts around the engine: checkpoints for tests and the demo, golden data from upstream."""
