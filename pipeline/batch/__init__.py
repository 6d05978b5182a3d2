"""Many videos: a manifest of jobs, workers that keep their models, and what became of each job."""
