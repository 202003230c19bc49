"""began: train and explore autoencoder-critic and boundary-seeking GANs."""

__version__ = "0.1.0"
