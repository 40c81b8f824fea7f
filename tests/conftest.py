import base64
import os
import sys
from pathlib import Path

import pytest

# One thread, here and in the processes that tests start: small tensors gain nothing from more, the
# suite is to run beside other work, and runs only repeat bit by bit with as many threads as before.
os.environ["OMP_NUM_THREADS"] = "1"

# specs name the toy world's classes by import path: tests are not a package
sys.path.insert(0, str(Path(__file__).parent))

import shape_checks

shape_checks.install()


@pytest.fixture(autouse=True)
def checks_from_the_start():
    """The first calls of each test have their shapes checked."""
    shape_checks.CALLS.clear()


@pytest.fixture(autouse=True)
def search_path():
    """Commands have a user's folders searched for modules: not those of the next test too."""
    before = list(sys.path)
    yield
    sys.path[:] = before


#: a picture of one pixel
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII="
)


@pytest.fixture(autouse=True)
def quick_curves(monkeypatch):
    """Runs that tests train have curves of one pixel: drawing takes longer than the training.

    `tests/running/test_curves.py` draws them.
    """
    from gfnem.running import curves

    monkeypatch.setattr(curves, "draw_curves", lambda rows, path: Path(path).write_bytes(PIXEL))
