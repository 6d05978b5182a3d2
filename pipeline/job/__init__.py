"""What one video is made from, and what a finished one carries."""
