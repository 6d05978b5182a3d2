"""Measurements on a card and on a CPU, with the notes in README.md: what the figures of the project come from."""
