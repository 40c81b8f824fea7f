"""Work shared out to copies of this process, or to threads where copies do not work."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import torch

from gfnem.running import workers as module

#: a command; `{work}` is what it does on 0 to 9
SCRIPT = """
import os, sys, time
import torch
from gfnem.errors import UserError
from gfnem.running.workers import workers
torch.set_num_threads(2)
first = os.getpid()
def work(item):
    {work}
with workers(work) as begin:
    found = [begin(item) for item in range(10)]
    print([each.result() for each in found])
"""
linux = pytest.mark.skipif(sys.platform != "linux", reason="no copies of processes elsewhere")


def ran(work: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", SCRIPT.format(work=work)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
@linux
def test_copies_do_the_work_with_one_thread_each():
    work = "return os.getpid() != first, torch.get_num_threads(), item"
    assert eval(ran(work).stdout) == [(True, 1, item) for item in range(10)]


@linux
@pytest.mark.slow
def test_copies_have_autograd():
    work = "x = torch.tensor(float(item), requires_grad=True); (x * x).backward(); return x.grad"
    outcome = ran(work.replace("x.grad", "float(x.grad)"))
    assert eval(outcome.stdout) == [2.0 * item for item in range(10)], outcome.stderr


@linux
@pytest.mark.slow
def test_what_goes_wrong_in_a_copy_is_said_here():
    assert "UserError: no 3" in ran("if item == 3: raise UserError('no 3')").stderr


@linux
@pytest.mark.slow
def test_a_copy_that_is_killed_is_said_in_a_line():
    outcome = ran("os.kill(os.getpid(), 9)")
    assert "UserError: a process of this command was ended" in outcome.stderr
    assert "OMP_NUM_THREADS=1" in outcome.stderr


@linux
@pytest.mark.slow
def test_copies_end_with_the_process_that_made_them():
    work = 'os.write(1, b"%d\\n" % os.getpid()); time.sleep(600)'
    command = [sys.executable, "-c", SCRIPT.format(work=work)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            copies = [int(process.stdout.readline()) for _ in range(2)]
        finally:
            process.kill()
    for _ in range(100):
        gone = [copy for copy in copies if not os.path.exists(f"/proc/{copy}")]
        if gone == copies:
            return
        time.sleep(0.1)
    for copy in set(copies).difference(gone):
        os.kill(copy, signal.SIGKILL)
    pytest.fail("copies outlive the process that made them")


def no_autograd():
    raise RuntimeError("Unable to handle autograd's threading in combination with fork")


@pytest.mark.parametrize("orderly", [False, True])
def test_threads_where_copies_have_no_autograd(monkeypatch, orderly):
    monkeypatch.setattr(module, "_try_autograd", no_autograd)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:

        def work(item: int) -> tuple[int, int, str, int]:
            name = threading.current_thread().name
            return item, os.getpid(), name, torch.get_num_threads()

        with module.workers(work, orderly) as begin:
            found = [each.result() for each in [begin(item) for item in range(20)]]
        items, processes, threads, counts = zip(*found, strict=True)
        assert items == tuple(range(20))
        assert set(processes) == {os.getpid()}
        assert set(counts) == ({2} if orderly else {1})
        assert not orderly or len(set(threads)) == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
