"""Lines and pictures for the terminal."""

from typing import Any

from rich.console import Console

from began_cli.errors import UserError


def say(text: str) -> None:
    """Print a line to stdout as it is: no markup, no colours, no wrapping."""
    Console(highlight=False).print(text, markup=False, soft_wrap=True)


def plural(n: int, word: str) -> str:
    """Return `1 image`, or `2,000 images`."""
    return f"{n:,} {word}{'s' * (n != 1)}"


def picture_class() -> Any:
    """Return the class of textual-image that shows a picture to Rich: `picture_class()(path)`.

    It asks the terminal for kitty's protocol and for sixel; elsewhere it draws coloured blocks.
    Raise UserError if textual-image is missing.
    """
    try:
        from textual_image.renderable import Image
    except ImportError as error:
        raise UserError(
            f"show=true: the package {error.name} is missing; python -m pip install 'began[show]'"
        ) from None
    return Image
