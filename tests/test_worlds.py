"""A world of one's own that forgets a fact, lacks a method or gives NaN is told so in words."""

import sys
from pathlib import Path

import pytest
import torch
from commands import refused
from torch import nn
from toy import BitModel, BitPolicy, BitSpace

from gfnem.component import Component, build
from gfnem.errors import UserError
from gfnem.images.policies import RasterPolicy
from gfnem.policy import Policy, Step
from gfnem.running.tryout import try_out, what_is_wrong
from gfnem.space import LatentSpace
from gfnem.target import Target

WORLD = """
from torch import nn
from gfnem.policy import Policy
from gfnem.target import Target

class Half(Target):
    def __init__(self, vocab_size: int | None = None):
        super().__init__()

class Forgetful(Policy):
    def __init__(self, vocab_size: int | None = None, hidden: int | None = None):
        super().__init__()
        self.net = nn.Linear(vocab_size, hidden + 1)

    def encode(self, x, given=None):
        return x

    def forward(self, context, state):
        return context
"""


@pytest.fixture
def world(tmp_path, monkeypatch):
    (tmp_path / "world_of_mine.py").write_text(WORLD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    sys.modules.pop("world_of_mine", None)


def test_a_fact_that_is_missing(capsys, world):
    flags = ["--dataset.sentences=50", "--policy", "world_of_mine.Forgetful"]
    line = refused(capsys, "train", *flags, "--out=run")
    assert "world_of_mine.Forgetful" in line and "not set: hidden;" in line
    assert "tell: contexts, nonterminals, shortest, vocab_size, vocabulary" in line
    assert not Path("run").exists()


def test_a_fact_that_a_class_of_ours_needs():
    spec = {"class_path": "gfnem.images.policies.RasterPolicy"}
    with pytest.raises(UserError) as caught:
        build(spec, Policy, width=4, rows=2)
    said = str(caught.value)
    assert "height, columns, codes are needed" in said
    assert said.endswith("(the data and the model tell: rows, width)")
    with pytest.raises(ValueError, match="height, width, rows, columns, codes are needed"):
        RasterPolicy().encode(torch.zeros(1, 4, 4))


def test_a_mistake_of_another_kind_is_not_blamed_on_facts():
    class Wrong(Component):
        def __init__(self, size: int | None = None):
            raise ValueError("just so")

    Wrong.__module__, Wrong.__qualname__ = __name__, "Wrong"
    sys.modules[__name__].Wrong = Wrong
    with pytest.raises(UserError, match=r"Wrong: just so$"):
        build({"class_path": f"{__name__}.Wrong"}, Component)


def test_methods_that_are_missing(capsys, world):
    line = refused(capsys, "train", "--model", "world_of_mine.Half", "--out=run")
    assert "world_of_mine.Half lacks methods that it must define: log_joint" in line
    file = Path("settings.yaml")
    file.write_text("model:\n  class_path: world_of_mine.Half\n")
    line = refused(capsys, "train", "--config", file, "--out=run")
    assert "world_of_mine.Half lacks methods that it must define: log_joint" in line
    with pytest.raises(UserError, match="LatentSpace lacks methods that it must define: backward"):
        build({"class_path": "gfnem.space.LatentSpace"}, LatentSpace)


def test_a_class_path_that_is_none():
    for path in (5, None, "..x.Model", "", "."):
        with pytest.raises(UserError):
            build({"class_path": path}, Target)


# -------------------------------------------------------------------------- trying it out


class OnNumbers(Target):
    """A target over bits whose observations are numbers."""

    def __init__(self, fault: str = ""):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(float("nan") if fault == "weight" else 1.0))
        self.fault = fault

    def log_joint(self, x, z):
        value = self.weight * z.sum(2) + x[:, None]
        if self.fault == "nan":
            value[1] = torch.nan
        if self.fault == "impossible":
            value[1] = -torch.inf
        return value.sum(1) if self.fault == "shape" else value

    def log_marginal(self, x):
        return x.log() if self.fault == "log" else None


class Two(BitPolicy):
    def __init__(self, fault: str = ""):
        super().__init__(sizes=(2,))
        self.fault = fault

    def encode(self, x, given=None):
        return torch.zeros(len(x), dtype=torch.long)

    def forward(self, context, state):
        step = super().forward(context, state)
        if self.fault:
            step.forward[2] = torch.nan
        return Step(step.forward, step.backward)

    def sample(self, context, x, *rest):
        kept, self.fault = self.fault, ""  # torch does not draw from NaN
        try:
            return super().sample(context, x, *rest)
        finally:
            self.fault = kept


class Pairs(BitSpace):
    def __init__(self):
        super().__init__(sizes=(2,))

    def initial_state(self, x, samples):
        return super().initial_state(torch.zeros(len(x), dtype=torch.long), samples)


@pytest.mark.parametrize(
    ("model", "policy", "numbers", "says"),
    [
        ("nan", "", (1, 2, 3), "OnNumbers.log_joint is not a finite number for observation 1 of"),
        ("shape", "", (1, 2, 3), r"OnNumbers.log_joint has the shape \(3,\), not \(3, 2\)"),
        ("weight", "", (1, 2, 3), "OnNumbers: the parameter weight is not finite"),
        ("", "nan", (1, 2, 3), "Two's log P_F is not a finite number for observation 2"),
        ("", "", (1, float("nan"), float("inf")), "observation 1, 2 is not finite in the data"),
        ("log", None, (1, -1, 3), "OnNumbers.log_marginal is not a finite .* observation 1"),
    ],
)
def test_what_is_not_finite_is_named(model, policy, numbers, says):
    torch.manual_seed(0)
    sampler = None if policy is None else Two(policy)
    state = torch.get_rng_state()
    with pytest.raises(UserError, match=says):
        try_out(OnNumbers(model), Pairs(), sampler, torch.tensor(numbers, dtype=torch.float))
    assert torch.equal(state, torch.get_rng_state())


def test_a_sound_world_passes():
    x = torch.tensor([1.0, 2.0])
    assert what_is_wrong(OnNumbers(), Pairs(), Two(), x) is None
    assert what_is_wrong(OnNumbers("impossible"), Pairs(), Two(), x) is None
    try_out(BitModel(), BitSpace(), BitPolicy(), torch.tensor([0, 1, 2]))
