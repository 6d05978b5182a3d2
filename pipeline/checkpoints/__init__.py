"""Weights: finding files, reading tensors lazily, filling modules, keeping blocks where they fit."""
