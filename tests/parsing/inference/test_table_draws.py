"""Nodes are drawn in a short way where rules are one table, and in the general way elsewhere."""

import pytest
import torch

from gfnem.parsing import NeuralPCFG, TopDownPolicy
from gfnem.parsing.inference import table_draws
from gfnem.parsing.inference.choices import GROUPED
from gfnem.parsing.inference.draws import _by_options
from gfnem.parsing.inference.nodes import Nodes
from gfnem.parsing.inference.table_draws import Lots, TableDraws
from gfnem.parsing.text.sentences import Sentences

LENGTHS, LABELS = (9, 3, 7, 4, 9), 4


def choices(scale=0.3):
    torch.manual_seed(1)
    lengths = torch.tensor(LENGTHS)
    tokens = torch.randint(1, 30, (len(lengths), int(lengths.max())))
    x = Sentences(tokens * (torch.arange(tokens.shape[1]) < lengths[:, None]), lengths)
    model = NeuralPCFG(30, LABELS, 6, dim=16)
    policy = TopDownPolicy(30, LABELS, 16)
    policy.serve(model)
    for parameter in (*policy.parameters(), *model.parameters()):
        parameter.data.add_(scale * torch.randn(parameter.shape))
    with torch.no_grad():
        return policy.eval().encode(x, model.given(x))


def nodes(count):
    """Nodes of three words or more, over any spans of any sentences."""
    spans = [
        (row, left, right)
        for row, length in enumerate(LENGTHS)
        for left in range(length - 2)
        for right in range(left + 3, length + 1)
    ]
    row, left, right = torch.tensor(spans)[torch.randint(len(spans), (count,))].unbind(1)
    return Nodes(torch.arange(count), row, left, right, torch.randint(LABELS, (count,)))


@pytest.mark.parametrize("count", [1, 7, 300, 3 * GROUPED])
@pytest.mark.parametrize(("temperature", "epsilon"), [(1.0, 0.0), (1.4, 0.3), (0.6, 1.0)])
@torch.no_grad()
def test_both_ways_make_the_same_of_the_same_random_numbers(
    count, temperature, epsilon, monkeypatch
):
    monkeypatch.setattr(table_draws, "_WORTH", 60)  # of few spans there are several groups
    found = choices().tempered(temperature)
    some, lots = nodes(count), Lots.draw((count,), 8, LABELS, found.root(), epsilon)
    short, general = TableDraws(found)(some, lots), _by_options(found, some, lots)
    torch.testing.assert_close(short.norms, general.norms, rtol=1e-5, atol=1e-5)
    # sums that are rounded in another order may end on the other side of a random number
    same = short.middle == general.middle
    assert (~same).sum() <= 0.01 * count
    wide = {"first": short.middle - some.left > 1, "second": some.right - short.middle > 1}
    for child, phrase in wide.items():
        one, other = getattr(short, child), getattr(general, child)
        assert (one != other)[same & phrase].sum() <= 0.01 * count


@torch.no_grad()
def test_a_word_beside_a_phrase_that_its_rules_hardly_allow():
    """Weights of words and of phrases are added as logs: their product may be no number above 0."""
    found = choices()
    potentials = found.potentials
    (first, last), _ = potentials.leaf_rows
    steep = torch.logspace(-30, 0, LABELS)  # of the phrase's label, the one against the other
    for weights, _ in (first, last):
        weights.copy_(weights * steep)
    found.look_ahead.values.copy_(-steep.log() * 1.2)
    some = nodes(200)
    drawn = TableDraws(found)(some, Lots.draw((200,), 8, LABELS, found.root()))
    assert drawn.norms.isfinite().all()
    assert ((drawn.middle > some.left) & (drawn.middle < some.right)).all()
    scores = found.options(some).scores.logsumexp(-1)
    torch.testing.assert_close(drawn.norms, scores, rtol=1e-4, atol=1e-4)
