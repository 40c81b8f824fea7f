"""Symbols that are split: what copies share, which symbols get them, and what cannot be split."""

import pytest
import torch

from gfnem.em import EM
from gfnem.parsing.grammars.neural_pcfg import NeuralPCFG
from gfnem.parsing.grammars.simple_pcfg import SimplePCFG
from gfnem.parsing.grammars.splitting import copied_symbols, split_symbols
from gfnem.parsing.text.sentences import Sentences
from gfnem.rates import Descent, Rates
from gfnem.recipes import exact

WORDS = 7


def grammar(nonterminals=3, preterminals=4, **options) -> NeuralPCFG:
    torch.manual_seed(0)
    made = NeuralPCFG(WORDS, nonterminals, preterminals, 16, **options)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn_like(parameter) / 4)
    return made


def sentences(count=20, words=6) -> Sentences:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, WORDS, (count, words), generator=generator)
    return Sentences(tokens, torch.randint(2, words + 1, (count,), generator=generator))


@pytest.mark.parametrize("shortest", [1, 2])
def test_copies_without_noise_give_the_same_probabilities(shortest):
    old, x = grammar(shortest=shortest), sentences()
    new = copied_symbols(old, [2, 0, 1, 0, 0], [3, 1, 0, 2, 1, 3], 0.0)
    assert (new.nonterminals, new.preterminals) == (5, 6)
    torch.testing.assert_close(new.log_marginal(x), old.log_marginal(x))
    root, rules, words = (table.detach() for table in new.tables())
    root_before, rules_before, _ = (table.detach() for table in old.tables())
    first = 3  # of the old preterminals; the new ones stand from 5 on
    torch.testing.assert_close(root[1].exp(), root_before[0].exp() / 3)
    # two preterminals of two copies each under a nonterminal
    share = float(rules[0, 5, 6].exp()) / float(rules_before[2, first + 3, first + 1].exp())
    assert share == pytest.approx(1 / 4)
    torch.testing.assert_close(words[0], words[5])


def test_noise_tells_copies_apart_and_leaves_single_symbols_alone():
    old = grammar()
    new = copied_symbols(old, [0, 1, 2, 2], [0, 1, 2, 3], 0.3)
    torch.testing.assert_close(new.nonterminal[:2], old.nonterminal[:2])
    torch.testing.assert_close(new.tables()[2], old.tables()[2])
    rules = new.tables()[1].detach()
    assert float((rules[2] - rules[3]).abs().max()) > 0.05
    assert float((rules[0, 2] - rules[0, 3]).abs().max()) > 0.05
    torch.testing.assert_close(rules.flatten(1).exp().sum(1), torch.ones(4))


def test_a_symbol_without_uses_gives_its_place_to_the_one_that_costs_most():
    old, x = grammar(), sentences()
    with torch.no_grad():  # nothing leads to nonterminal 1, preterminal 3 says the same word always
        for name, bias in old.named_parameters():
            if name == "rule_net.bias":
                bias.view(7, 7)[1] = bias.view(7, 7)[:, 1] = -1e3
            if bias.shape == (7,):  # of the start symbol
                bias[1] = -1e3
    uses = old.expected_uses(x).sum(0) / len(x)
    _, rules, _ = old.tables()
    entropy = -(rules.exp() * rules).flatten(1).sum(1)
    costs = (uses[:3] * entropy).tolist()
    assert uses[1] < 1e-6
    torch.manual_seed(3)
    new = split_symbols(old, [x[:9], x[9:]], 3, 4, 0.0)
    copied = [
        min(range(3), key=lambda one: float((old.nonterminal[one].detach() - vector).abs().max()))
        for vector in new.nonterminal.detach()
    ]
    assert sorted(copied) == sorted([0, 2, max((0, 2), key=lambda one: costs[one])])
    torch.testing.assert_close(new.log_marginal(x), old.log_marginal(x))


def test_fewer_places_keep_the_symbols_that_are_used_most():
    old, x = grammar(4, 3), sentences()
    uses = old.expected_uses(x).sum(0)[:4]
    new = split_symbols(old, [x], 2, 3, 0.0)
    kept = sorted(uses.argsort(descending=True)[:2].tolist())
    torch.testing.assert_close(new.nonterminal, old.nonterminal[kept])


@pytest.mark.slow
def test_symbols_that_stand_for_two_are_told_apart_once_they_are_split():
    pairs = torch.tensor([[1, 2, 3, 4], [5, 2, 6, 4]]).repeat(8, 1)
    x = Sentences(pairs, torch.full((16,), 4))
    torch.manual_seed(0)
    few = NeuralPCFG(WORDS, 2, 2, 32, 2)

    def trained(model: NeuralPCFG, updates: int) -> float:
        descent = Descent(EM(model, None, None, exact()), Rates(model=1e-2))
        for _ in range(updates):
            descent.update(x)
        return -float(model.log_marginal(x).detach().mean())

    assert trained(few, 100) > 5.37
    assert trained(few, 60) > 5.37  # more training is of no use
    assert trained(split_symbols(few, [x], 4, 4), 60) < 1.42  # nats; 1.39 is the least


def test_what_cannot_be_split():
    x = sentences()
    with pytest.raises(ValueError, match=r"not in a SimplePCFG$"):
        split_symbols(SimplePCFG(WORDS, 4, 4, dim=8), [x], 4, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not in a NeuralPCFG with parent classes"):
        copied_symbols(grammar(parent_classes=3), [0], [0], 0.1)
    with pytest.raises(ValueError, match="there are none"):
        split_symbols(grammar(), [], 4, 4)
    with pytest.raises(ValueError, match="noise"):
        split_symbols(grammar(), [x], 4, 4, -1.0)


def test_sentences_that_cannot_be_derived_have_no_uses():
    torch.manual_seed(0)
    model = grammar(3, 4, shortest=2)
    text, more = (
        sentences(),
        Sentences.from_lists([[1]] * 2000),
    )  # it derives no sentence of one word
    with torch.no_grad():
        one, other = (
            split_symbols(model, parts, 4, 5, noise=0.0) for parts in ([text], [more, text])
        )
    assert all(map(torch.equal, one.tables(), other.tables()))
