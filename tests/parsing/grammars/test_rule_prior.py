"""A Dirichlet prior on rules as side information."""

import pytest
import torch
from torch.distributions import Dirichlet

from gfnem.em import EM
from gfnem.errors import UserError
from gfnem.parsing import NeuralPCFG, RulePrior, Sentences, TopDownPolicy, TopDownSpace
from gfnem.rates import Descent
from gfnem.recipes import exact

X = Sentences.from_lists([[1, 2, 3, 1], [2, 2]])


def grammar():
    torch.manual_seed(0)
    return NeuralPCFG(5, nonterminals=2, preterminals=3, dim=8)


def test_it_is_the_density_of_a_dirichlet_distribution():
    """Its differences between two grammars are those of `torch.distributions`."""
    weight, sentences, found = 0.7, 50, []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = NeuralPCFG(5, nonterminals=2, preterminals=3, dim=8)
        with torch.no_grad():
            model.word_net[-1].weight.mul_(1 + 3 * seed)
            _, rules, words = model.tables()
            value = weight * sentences * RulePrior().log_likelihood(model)
        density = 0.0
        for table in (rules.flatten(1), words.flatten(0, -2)):
            symbols, choices = table.shape
            alpha = torch.full((choices,), 1 + weight * sentences / (symbols * choices))
            density = density + Dirichlet(alpha).log_prob(table.exp()).sum()
        found.append((value, density))
    (first, one), (second, other) = found
    assert float(second - first) == pytest.approx(float(other - one), rel=1e-3)
    assert abs(float(second - first)) > 1


@pytest.mark.slow
def test_it_keeps_words_apart_from_few():
    entropies = []
    for weight in (0.0, 20.0):
        model = grammar()
        recipe = exact(side=RulePrior(weight))
        em = EM(model, TopDownSpace(2), TopDownPolicy(5, 2, dim=8), recipe)
        assert any("Dirichlet" in line for line in em.prepare())
        descent = Descent(em)
        for _ in range(30):
            descent.update(X)
        with torch.no_grad():
            words = model.tables()[2].exp()
        entropies.append(float(-(words * words.clamp(min=1e-30).log()).sum(-1).mean()))
    assert entropies[1] > entropies[0] + 0.1
    assert entropies[1] == pytest.approx(torch.tensor(5.0).log().item(), abs=0.05)


def test_what_has_no_such_prior():
    with pytest.raises(UserError, match="probability 0"):
        RulePrior().prepare(_with_zeros())
    with pytest.raises(UserError, match="no grammar"):
        RulePrior().prepare(torch.nn.Linear(1, 1))


def _with_zeros():
    model = grammar()
    tables = model.tables()
    tables[1].data[0, 0, 0] = -torch.inf
    model.tables = lambda: tables
    return model
