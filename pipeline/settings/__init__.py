"""What can be set: declared once, read from flags and presets, validated."""
