"""The command line: `gfnem train`, `parse`, `evaluate`, `generate`, `show`, `train-prior`.

A file a verb; `commands` puts them together, `arguments` holds what is worked around in the library
that parses them.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import sys
from collections.abc import Sequence

from gfnem.errors import Interrupted, UserError

#: what is wrong where there is no room to write
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code (2 for bad input, 130 when interrupted)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Threads that spin while they wait make the many small tensors here tens of times slower as
    # soon as another process wants the cores; threads that sleep at once take twice as long where
    # none does. It must be said before torch is imported; what the user says counts.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # some 50 microseconds
    # which of its own fonts it does not find on a machine is no news for who draws a curve
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    # trees hold words of any script, and what reads them expects UTF-8; the names of files may hold
    # any bytes
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        try:
            return _command(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:  # nobody reads any more
        _drop_output()
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _drop_output()
        return _complain(f"cannot write ({error.strerror})")


def _command(arguments: list[str]) -> int:
    try:
        from gfnem.cli.commands import run

        return run(arguments)
    except UserError as error:
        return _complain(str(error))
    except KeyboardInterrupt as interrupt:
        print("gfnem: interrupted", *interrupt.args, file=sys.stderr)
        return interrupt.code if isinstance(interrupt, Interrupted) else 130


def _complain(message: str) -> int:
    print(f"gfnem: error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def _drop_output() -> None:
    """Has what is still to be written go nowhere, or Python would fail with it at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
