"""Trained generators as files: checkpoints and exported generators."""
