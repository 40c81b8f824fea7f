"""What a user did wrong, in one line."""


class UserError(Exception):
    """Bad input from outside: its text names the file, the line and the cause.

    The command line prints it as one line on standard error and exits with code 2.
    """
