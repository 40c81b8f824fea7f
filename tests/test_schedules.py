import math

import pytest

from gfnem.schedules import AdaptiveThreshold, Alternating, Anneal, EveryUpdate, value_at


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
    [(1.0, 2.0, 0), (1.0, 2.0, 3, "cosine"), (0.0, 2.0, 3, "exponential")],
)
def test_contradictions_are_refused(arguments):
    with pytest.raises(ValueError):
        Anneal(*arguments)


def test_numbers_are_schedules_too():
    assert value_at(3, 17) == 3.0 and value_at(Anneal(0, 1, 2), 1) == 0.5


def test_alternating_takes_turns():
    timing = Alternating(2, 3)
    pattern = [(timing.e_step_due(t), timing.m_step_due(t, 0, 9.9)) for t in range(10)]
    assert pattern == 2 * ([(True, False)] * 2 + [(False, True)] * 3)
    with pytest.raises(ValueError):
        Alternating(0, 3)


def test_threshold_moves_with_m_updates_not_updates():
    timing = AdaptiveThreshold(Anneal(4.0, 0.0, updates=4))
    assert timing.m_step_due(1000, 1, 2.9) and not timing.m_step_due(0, 1, 3.0)
    assert not timing.m_step_due(0, 2, 2.9)
    assert timing.threshold(3) == 1.0 and all(timing.e_step_due(t) for t in range(5))


def test_every_update_does_both():
    timing = EveryUpdate()
    assert timing.e_step_due(3) and timing.m_step_due(3, 0, 1e9) and timing.threshold(0) is None


def test_every_update_can_be_thrifty():
    timing = EveryUpdate(e_every=2, m_every=3)
    due = [(timing.e_step_due(t), timing.m_step_due(t, 0, 1e9)) for t in range(6)]
    assert due == [(t % 2 == 0, t % 3 == 0) for t in range(6)]
    with pytest.raises(ValueError):
        EveryUpdate(e_every=0)
