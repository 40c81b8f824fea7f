import copy
import json
import pickle

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.component import Component, build
from gfnem.errors import UserError
from gfnem.objectives import Objective, SubTrajectoryBalance
from gfnem.schedules import AdaptiveThreshold, Anneal, Clock, Schedule
from gfnem.space import LatentSpace
from gfnem.target import Target


class Holder(Component):
    def __init__(self, part, *, table=None, **options):
        self.part, self.table, self.options = part, table, options


def test_nested_components_survive_json():
    timing = AdaptiveThreshold(Anneal(4.0, 1.0, updates=10, shape="exponential"))
    again, clock = build(json.loads(json.dumps(timing.spec())), Schedule), Clock()
    for clock.m_updates in (0, 3, 99):
        assert again.threshold(clock) == timing.threshold(clock)


def test_positional_keyword_and_extra_arguments_are_recorded():
    holder = Holder(BitSpace((1, 2)), table={"a": (1, 2.5, None)}, colour="red")
    again = build(holder.spec(), Component)
    assert again.part.sizes.tolist() == [1, 2]
    assert again.table == {"a": [1, 2.5, None]} and again.options == {"colour": "red"}
    assert again.spec() == holder.spec()


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_keep_their_spec(copier):
    policy = BitPolicy((2, 1), hidden=4)
    twin = copier(policy)
    assert twin.spec() == policy.spec()
    for a, b in zip(policy.parameters(), twin.parameters(), strict=True):
        assert torch.equal(a, b)


def test_facts_fill_only_what_is_unset():
    spec = {"class_path": "toy.BitModel", "init_args": {"scale": 0.0}}
    model = build(spec, Target, sizes=(1, 1), scale=3.0, unknown=1)
    assert model.sizes == (1, 1) and model.unary.abs().sum() == 0


def test_a_component_passes_through():
    space = BitSpace()
    assert build(space, LatentSpace) is space and build(None, LatentSpace) is None


def test_what_is_not_plain_is_refused_by_name():
    with pytest.raises(TypeError, match=r"Holder\(part=\.\.\.\).*Tensor"):
        Holder(torch.zeros(1)).spec()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("VarGrad", "class_path"),
        ({"class_path": "nowhere.Thing"}, "cannot import nowhere.Thing"),
        ({"class_path": "toy.Thing"}, "cannot import toy.Thing"),
        ({"class_path": "Thing"}, "cannot import Thing"),
        ({"class_path": "toy.BitSpace"}, "not a Objective"),
        (
            {"class_path": "gfnem.objectives.SubTrajectoryBalance", "init_args": {"decay": -1}},
            "decay -1: more than 0 is needed",
        ),
        (
            {"class_path": "gfnem.objectives.SubTrajectoryBalance", "init_args": {"speed": 1}},
            "speed",
        ),
    ],
)
def test_bad_specs_are_the_users_mistake(spec, message):
    with pytest.raises(UserError, match=message) as caught:
        build(spec, Objective)
    assert "\n" not in str(caught.value)


def test_defaults_need_no_arguments():
    assert build({"class_path": "gfnem.objectives.VarGrad"}, Objective).spec()["init_args"] == {}
    assert SubTrajectoryBalance().decay == 0.9
    assert BitModel().spec()["init_args"] == {}
