"""What can be typed after ``infinitetalk``: a file for each subcommand, and the way into them."""
