"""Errors that a user can put right, and the message of any other in one line."""


class UserError(Exception):
    """A mistake in the settings or the input.

    Its text is one line: the setting, what was wrong, and what to do. The command line prints it
    on stderr and exits with 2; it never becomes a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
