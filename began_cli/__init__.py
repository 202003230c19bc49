"""began: train and explore autoencoder-critic and boundary-seeking GANs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from began_cli.generators.load import load_generator
    from began_cli.python import train

__version__ = "0.1.0"
__all__ = ["__version__", "load_generator", "train"]


def __getattr__(name: str) -> Any:
    """Fetch what is asked for only then, so that importing us is quick."""
    if name == "load_generator":
        from began_cli.generators.load import load_generator

        return load_generator
    if name == "train":
        from began_cli.python import train

        return train
    raise AttributeError(f"module 'began_cli' has no attribute '{name}'")
