"""Sampling: schedules and solvers, guidance, TeaCache, and the denoising of one window."""
