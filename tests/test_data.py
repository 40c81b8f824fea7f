from types import SimpleNamespace

import pytest
import torch
from toy import BitData

from gfnem.data import BatchOrder


def test_a_pass_sees_every_observation_once():
    order = BatchOrder([1] * 12, batch_size=4, seed=3)
    for number in range(3):
        seen = [i for update in range(3) for i in order[3 * number + update]]
        assert sorted(seen) == list(range(12))


def test_passes_and_seeds_differ_and_time_does_not_matter():
    order = BatchOrder([1] * 40, batch_size=4, seed=0)
    later = BatchOrder([1] * 40, batch_size=4, seed=0)
    wanted = [order[t] for t in range(25)]
    assert later[17] == wanted[17] and later[3] == wanted[3]  # in any order of asking
    assert wanted[:10] != wanted[10:20]
    assert [BatchOrder([1] * 40, 4, seed=1)[t] for t in range(10)] != wanted[:10]


def test_leftovers_are_left_to_other_passes():
    order = BatchOrder([1] * 10, batch_size=4, seed=0)
    assert order.batches_per_pass == 2
    seen = {i for update in range(20) for i in order[update]}
    assert seen == set(range(10)) and all(len(set(order[t])) == 4 for t in range(20))


def test_batches_hold_similar_sizes():
    sizes = torch.randperm(200, generator=torch.Generator().manual_seed(0)).tolist()
    order = BatchOrder(sizes, batch_size=10, seed=0, pool=20)
    spread = [max(sizes[i] for i in order[t]) - min(sizes[i] for i in order[t]) for t in range(20)]
    assert spread == [9] * 20  # one pool: ten neighbours in size make a batch
    first = [min(sizes[i] for i in order[t]) for t in range(20)]
    assert first != sorted(first)


def test_fewer_observations_than_a_batch():
    assert sorted(BatchOrder([1, 1, 1], batch_size=8, seed=0)[5]) == [0, 1, 2]
    with pytest.raises(ValueError, match="no observations"):
        BatchOrder([], batch_size=8, seed=0)


def test_loader_goes_on_where_the_module_stands():
    data = BitData(batch_size=2, interval=5, kinds=tuple(range(3)) * 4)

    def batches(updates, limit=None):
        module = SimpleNamespace(updates=torch.tensor(updates), max_updates=limit)
        data.trainer = SimpleNamespace(lightning_module=module, overfit_batches=0)
        loader = data.train_dataloader()
        listed = [x.tolist() for x in loader]
        assert len(loader) == len(listed)
        return listed

    whole = batches(0) + batches(5)
    assert whole[3:5] == batches(3) and len(whole) == 10  # up to the next validation
    assert batches(5, limit=7) == whole[5:7] and batches(9, limit=7) == []
