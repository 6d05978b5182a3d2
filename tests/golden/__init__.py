"""Golden data for the tests, computed by upstream's own code (see ``__main__``)."""
