"""What a user did wrong, in one line."""

from __future__ import annotations

import re


class UserError(Exception):
    """Bad input from outside: its text names the file, the line and the cause.

    The command line prints it as one line on standard error and exits with code 2.
    """


#: what torch says of a tensor that memory, or a number of 64 bits, does not hold
_TOO_LARGE = re.compile("(?i)out of memory|allocate memory|not enough memory|overflow")


def too_large(error: Exception) -> str | None:
    """What an error says of something too large, in a line; None if it is another error."""
    if isinstance(error, (MemoryError, OverflowError)) or _TOO_LARGE.search(str(error)):
        lines = str(error).strip().splitlines()
        return lines[0] if lines else "out of memory"
    return None


class Interrupted(KeyboardInterrupt):
    """Training was asked to stop by a signal, and has saved what it had.

    Args:
        text: how to go on.
        code: the exit code.
    """

    def __init__(self, text: str, code: int = 130):
        super().__init__(text)
        self.code = code
