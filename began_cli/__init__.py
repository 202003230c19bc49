"""began: train and explore autoencoder-critic and boundary-seeking GANs."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from began_cli.generators.load import load_generator

__version__ = "0.1.0"
__all__ = ["__version__", "load_generator"]


def __getattr__(name: str) -> Any:
    """`load_generator` is fetched when it is first asked for, so that importing us is quick."""
    if name != "load_generator":
        raise AttributeError(f"module 'began_cli' has no attribute '{name}'")
    from began_cli.generators.load import load_generator

    return load_generator
