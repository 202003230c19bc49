"""Evaluation: features of images, scores on features, mode coverage, reconstructions."""
