"""Means over updates, also across a checkpoint."""

import pytest
import torch

from gfnem.running.averages import Averages


def test_each_figure_has_a_count_of_its_own():
    averages = Averages()
    averages.add(loss=torch.tensor(1.0, requires_grad=True), gap=4.0)
    averages.add(loss=3.0)
    assert averages.take() == {"loss": 2.0, "gap": 4.0}
    assert averages.take() == {}


def test_a_checkpoint_holds_what_was_not_yet_asked_for():
    before, after = Averages(), Averages()
    before.add(loss=1.0)
    before.add(loss=2.0)
    after.load_state_dict(before.state_dict())
    after.add(loss=6.0)
    assert after.take()["loss"] == pytest.approx(3.0)
