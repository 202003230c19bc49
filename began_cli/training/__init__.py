"""Train a generator: the loop, and what watches, logs, saves and resumes a run."""
