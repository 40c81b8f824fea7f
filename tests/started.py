"""Commands in processes of their own, for tests that kill them or have several of them.

What all commands import takes seconds of each process. These are forked from one that has imported
it and done nothing else.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload(["gfnem.cli.commands", "gfnem.running.training", "gfnem.parsing"])


class Started:
    """A command that runs, its output in files.

    Args:
        arguments: of `gfnem`.
        environment: its whole environment.
    """

    def __init__(self, *arguments, environment: Mapping[str, str]):
        self._folder = tempfile.TemporaryDirectory(prefix="gfnem-test-")
        self._process = _SERVER.Process(
            target=_command,
            args=([str(part) for part in arguments], self._folder.name, dict(environment)),
            kwargs={"where": os.getcwd()},
        )
        self._process.start()
        self.pid = self._process.pid

    def poll(self) -> int | None:
        """The exit code, minus the signal that ended it; None while it runs."""
        return self._process.exitcode

    def printed(self) -> tuple[str, str]:
        """Standard output and error so far.

        How far the reading of data is, is said after some seconds, on a busy machine therefore.
        """
        paths = (Path(self._folder.name, name) for name in ("out", "errors"))
        out, errors = (path.read_text(encoding="utf-8") if path.exists() else "" for path in paths)
        lines = errors.splitlines(keepends=True)
        return out, "".join(line for line in lines if not line.startswith("gfnem: reading "))

    def finish(self, patience: float = 300) -> tuple[int, str, str]:
        """Waits for its end; the exit code and what it has printed."""
        self._process.join(patience)
        code = self.poll()
        assert code is not None, ("it does not end", *self.printed())
        return code, *self.printed()


def _command(arguments: list[str], folder: str, environment: dict[str, str], where: str) -> None:
    from gfnem.cli import main

    # a suite that a script started in the background has inherited to ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(where)
    for number, name in ((1, "out"), (2, "errors")):
        os.dup2(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["gfnem", *arguments]
    sys.exit(main(arguments))
