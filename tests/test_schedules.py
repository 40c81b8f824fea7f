import math

import pytest
import torch
from toy import BitModel, BitPolicy, BitSpace

from gfnem.component import build
from gfnem.em import EM
from gfnem.errors import UserError
from gfnem.rates import Descent
from gfnem.recipes import gflownet, posterior
from gfnem.schedules import (
    AdaptiveThreshold,
    Alternating,
    Anneal,
    Clock,
    EveryUpdate,
    over,
    value_at,
)


def test_linear_anneal_meets_its_ends_and_middle():
    anneal = Anneal(10.0, 2.0, updates=4)
    assert [anneal(t) for t in (-1, 0, 1, 2, 4, 100)] == [10, 10, 8, 6, 2, 2]


def test_exponential_anneal_has_a_constant_ratio():
    anneal = Anneal(8.0, 0.5, updates=4, shape="exponential")
    assert [anneal(t) for t in range(6)] == pytest.approx([8, 4, 2, 1, 0.5, 0.5])
    ratios = {round(math.log(anneal(t + 1) / anneal(t)), 9) for t in range(4)}
    assert len(ratios) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        *((1.0, 2.0, 0), (1.0, 2.0, 3, "cosine"), (0.0, 2.0, 3, "exponential")),
        *((1.0, 2.0), (1.0, 2.0, None, "linear", 1.5)),
    ],
)
def test_contradictions_are_refused(arguments):
    with pytest.raises(ValueError):
        Anneal(*arguments)


def test_a_share_is_one_of_a_run_whose_length_is_known():
    with pytest.raises(RuntimeError, match="unknown length"):
        Anneal(2.0, 1.0, share=0.5)(0)
    spec = Anneal(2.0, 1.0, share=0.5).spec()
    counted = over({"recipe": [spec, {"other": 0.5}], "max_updates": 9}, 9)
    assert counted["max_updates"] == 9 and counted["recipe"][1] == {"other": 0.5}
    anneal = build(counted["recipe"][0], Anneal)
    assert (anneal(0), anneal(2), anneal(4)) == (2.0, 1.5, 1.0)
    assert over(counted, 100) == counted  # a run that goes on keeps its schedules
    spec["init_args"]["share"] = 2
    with pytest.raises(UserError, match="share 2"):
        build(over(spec, 9), Anneal)
    with pytest.raises(UserError, match="of how many updates"):
        over([spec], None)
    deep = spec
    for _ in range(5000):
        deep = {"class_path": "gfnem.Anneal", "init_args": {"start": deep}}
    with pytest.raises(UserError, match="too deeply"):
        over(deep, 9)
    both = over(Anneal(2.0, 1.0, 6, share=0.5).spec(), 100)
    assert build(both, Anneal).updates == 6


def test_numbers_are_schedules_too():
    assert value_at(3, 17) == 3.0 and value_at(Anneal(0, 1, 2), 1) == 0.5


def clock(updates=0, m_updates=0, average=9.9):
    """A clock that has counted so much."""
    made = Clock()
    made.updates, made.m_updates = updates, m_updates
    made.average = lambda: average
    return made


def turns(schedule, updates):
    """Which networks are trained in the first updates."""
    due = schedule.due
    return [(due("policy", clock(t)), due("model", clock(t))) for t in range(updates)]


def test_alternating_takes_turns():
    assert turns(Alternating(2, 3), 10) == 2 * ([(True, False)] * 2 + [(False, True)] * 3)
    with pytest.raises(ValueError):
        Alternating(0, 3)


def test_threshold_moves_with_m_updates_not_updates():
    schedule = AdaptiveThreshold(Anneal(4.0, 0.0, updates=4))
    assert schedule.due("model", clock(1000, 1, 2.9))
    assert not schedule.due("model", clock(0, 1, 3.0))
    assert not schedule.due("model", clock(0, 2, 2.9))
    assert schedule.threshold(clock(m_updates=3)) == 1.0
    assert all(schedule.due("policy", clock(t)) for t in range(5))


def test_every_update_does_both():
    assert turns(EveryUpdate(), 4) == [(True, True)] * 4
    assert EveryUpdate().threshold(clock()) is None


def test_every_update_can_be_thrifty():
    due = turns(EveryUpdate(e_every=2, m_every=3), 6)
    assert due == [(t % 2 == 0, t % 3 == 0) for t in range(6)]
    with pytest.raises(ValueError):
        EveryUpdate(e_every=0)


def test_a_clock_counts_and_is_kept_in_checkpoints():
    made = Clock()
    assert math.isnan(made.average())
    for loss in (2.0, float("nan"), 4.0):
        made.observe(torch.tensor(loss), 0.5)
        made.tick({"policy"})
    made.tick({"model"})
    assert made.average() == pytest.approx((0.5 * 2 + 4) / 1.5)  # what is not finite stays out
    again = Clock()
    again.load_state_dict(made.state_dict())
    assert (again.updates, again.e_updates, again.m_updates) == (4, 3, 1)
    assert again.average() == made.average()


def test_without_m_steps_anneals_run_over_updates():
    em = EM(BitModel(), BitSpace(), BitPolicy(), posterior(samples=2, epsilon=Anneal(0.5, 0.0, 4)))
    other = EM(BitModel(), BitSpace(), BitPolicy(), gflownet(samples=2))
    assert em.clock.anneals_over == "updates" and other.clock.anneals_over == "m_updates"
    for done in range(3):
        assert em.clock.now == done
        Descent(em).update(torch.tensor([0, 1]))
