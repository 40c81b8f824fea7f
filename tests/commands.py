"""The command line as tests call it: in this process, with settings that train in a second."""

import atexit
import contextlib
import io
import shutil
import tempfile
from functools import lru_cache
from pathlib import Path

import torch

from gfnem.cli import main

#: a model so small that twenty updates take a second
SMALL = [
    "--model.nonterminals=4",
    "--model.preterminals=6",
    "--model.dim=16",
    "--policy.dim=16",
    "--max-updates=20",
    "--dataset.interval=10",
    "--dataset.valid_sentences=20",
    "--accelerator=cpu",
]
#: ... on sentences of the embedded grammar
TINY = [*SMALL, "--dataset.sentences=200"]


def call(*arguments) -> int:
    """Runs one command; the exit code."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as end:  # --help and the like
        return int(end.code or 0)
    finally:
        torch.use_deterministic_algorithms(False)


def refused(capsys, *arguments) -> str:
    """Runs a command that must fail as bad input does; its one line on standard error."""
    capsys.readouterr()
    code = call(*arguments)
    output = capsys.readouterr()
    assert code == 2, (code, output)
    assert output.err.startswith("gfnem: error: ") and output.err.count("\n") == 1, output.err
    return output.err.strip()


def printed(capsys, *arguments) -> str:
    """Runs a command that must succeed without a word on standard error; what it printed."""
    capsys.readouterr()
    code = call(*arguments)
    output = capsys.readouterr()
    assert (code, output.err) == (0, ""), (code, output.err)
    return output.out


@lru_cache
def trained() -> Path:
    """A tiny run, trained once for all tests; nothing may be written into it."""
    folder = Path(tempfile.mkdtemp(prefix="gfnem-test-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with contextlib.redirect_stdout(io.StringIO()):  # whichever test asks first, it is not its own
        assert call("train", *TINY, "--out", folder / "run") == 0
    return folder / "run"


def same(one, other) -> bool:
    """Whether two entries of a `state_dict` are equal: tensors, plain data, or dicts of these."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    return torch.equal(one, other) if torch.is_tensor(one) else one == other
