"""The examples of docs/extending.md and of the README, as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from commands import SMALL, call, printed

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "extending.md"
OWN = ("codes", "my_recipe", "my_objective", "my_reward", "test_codes")


def files() -> dict[str, str]:
    """The files that the named blocks of the page make up."""
    text, parts = PAGE.read_text(encoding="utf-8"), {}
    for name, block in re.findall(r"^```\w+ ([\w.]+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        parts.setdefault(name, []).append(block)
    return {name: "\n\n".join(blocks) for name, blocks in parts.items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the page's files; it is the current one."""
    for name, content in files().items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in OWN:
        sys.modules.pop(name, None)


def test_the_page_is_whole():
    assert {name.removesuffix(".py") for name in files()} == set(OWN)
    recipe = files()["my_recipe.py"]
    assert len(recipe.splitlines()) < 30, "a recipe of one's own in under 30 lines was promised"


def test_a_recipe_and_an_objective_train_the_sampler(folder):
    from codes import Arrows, FromLeft, Points, Reader
    from my_objective import MedianBalance
    from my_recipe import replayed

    from gfnem.em import EM
    from gfnem.rates import Descent, Rates
    from gfnem.recipes import gflownet

    data = Points()
    for recipe in (replayed(share=0.25), gflownet(objective=MedianBalance())):
        torch.manual_seed(0)
        em = EM(Arrows().requires_grad_(False), FromLeft(4), Reader(4), recipe)
        descent = Descent(em, Rates(policy=0.01, log_z=0.05))
        losses = [float(descent.update(data.training_batch(t))["e_loss"]) for t in range(50)]
        assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


@pytest.mark.slow
def test_its_own_tests_pass(folder):
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_codes.py"]
    done = subprocess.run(command, cwd=folder, env=settings, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_a_world_a_recipe_and_an_objective_on_the_command_line(folder, capsys):
    points = [f"{left / 7} {left % 5 - 2}\n" for left in range(40)]
    (folder / "points.txt").write_text("".join(points))
    train = ["train", "--world", "codes.PointWorld", "--data", "points.txt", "--accelerator", "cpu"]
    assert call(*train, "--max-updates", 5, "--out", "runs/points") == 0
    recipe = ["--recipe", "my_recipe.replayed", "--recipe.share", "0.25"]
    assert call(*train, "--max-updates", 5, "--out", "runs/recipe", *recipe) == 0
    objective = ["--recipe.objective", "my_objective.MedianBalance"]
    assert call(*train, "--max-updates", 5, "--out", "runs/objective", *objective) == 0
    assert "share: 0.25" in (folder / "runs/recipe/config.yaml").read_text()
    capsys.readouterr()
    assert printed(capsys, "infer", "runs/points", "points.txt", "-k", 2).count("\n") == 40
    assert printed(capsys, "sample", "runs/points", "-n", 3).count("\n") == 3
    assert "nll" in printed(capsys, "evaluate", "runs/points", "--data", "points.txt")
    (folder / "points.txt").write_text("1 2\n3\n")
    assert call(*train, "--out", "runs/bad") == 2
    assert "points.txt, line 2: two numbers are wanted" in capsys.readouterr().err


@pytest.mark.slow
def test_a_reward_on_the_command_line(folder, capsys):
    (folder / "text").write_text("the dog sees the cats\nthe cats see the dog\n" * 10)
    for name in ("Verbs", "Balance"):
        flags = [
            *SMALL,
            "--data",
            "text",
            "--dataset.cache=off",
            "--reward",
            f"my_reward.{name}",
            "--max-updates=4",
        ]
        out = printed(capsys, "train", *flags, "--dataset.interval=2", "--out", f"runs/{name}")
        assert f"reward {name}" in out
        figures = printed(capsys, "evaluate", f"runs/{name}", "--code", "my_reward.py")
        assert f"times {name}" in " ".join(figures.split())
