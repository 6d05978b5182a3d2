"""Weights files: which are there, what is in them, and their tensors by name, read when they are asked for."""
