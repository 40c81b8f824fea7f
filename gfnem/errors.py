"""What a user did wrong, in one line."""


class UserError(Exception):
    """Bad input from outside: its text names the file, the line and the cause.

    The command line prints it as one line on standard error and exits with code 2.
    """


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop by a signal, and has saved what it had.

    Args:
        text: how to go on.
        code: the exit code.
    """

    def __init__(self, text: str, code: int = 130):
        super().__init__(text)
        self.code = code
