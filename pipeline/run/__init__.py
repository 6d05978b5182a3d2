"""One video: models kept, windows streamed, written and resumed."""
