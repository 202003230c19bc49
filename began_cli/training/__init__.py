"""Train a generator: the loop, and all that watches, logs, saves and resumes a run."""
