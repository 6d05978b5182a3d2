"""Networks that take a voice out of a mix."""
