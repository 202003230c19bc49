"""How good a generator is: features of images, scores on features, mode coverage."""
