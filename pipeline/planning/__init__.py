"""What a run will do, decided before anything is loaded: machine, memory, windows, refusals and notices."""
