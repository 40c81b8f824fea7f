"""How threads of a command wait for work, which is said before torch is imported."""

import os

from gfnem.cli import main


def test_threads_look_for_work_for_a_while(monkeypatch, capsys):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "of the test")  # so that it is as before after the test
        monkeypatch.delenv(name)
    assert main(["worlds"]) == 0 and "text" in capsys.readouterr().out
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE" and os.environ["GOMP_SPINCOUNT"] == "1000"


def test_what_the_user_says_counts(monkeypatch, capsys):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert main(["worlds"]) == 0
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE" and os.environ["GOMP_SPINCOUNT"] == "7"
