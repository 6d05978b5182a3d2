"""Files of every kind that is read, spoilt at random from a fixed seed, and what must never become of them."""
