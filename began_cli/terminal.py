"""Lines for the terminal."""

from rich.console import Console


def say(text: str) -> None:
    """Print a line to stdout as it is: no markup, no colours, no wrapping."""
    Console(highlight=False).print(text, markup=False, soft_wrap=True)
