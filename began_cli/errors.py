"""What a user can put right."""


class UserError(Exception):
    """A mistake in the settings or the input.

    Its text is one line: the setting, what was wrong, and what to do. The command line prints it
    on stderr and exits with 2; it never becomes a traceback.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))
