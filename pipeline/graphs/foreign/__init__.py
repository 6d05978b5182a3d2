"""What graphs of other packs have in common: pictures, sound, and texts that condition."""
