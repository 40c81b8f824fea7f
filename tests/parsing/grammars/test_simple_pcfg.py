"""Grammars of many symbols: against the same rules as a table, from file to figures."""

import pytest
import torch
from sharp_grammar import LABELS, SENTENCES, WORDS

from gfnem.parsing import Sentences, SimplePCFG, TabularGrammar
from gfnem.parsing.bracket_prior.brackets import Brackets
from gfnem.parsing.grammars.context_free_fit import FixedPCFG
from gfnem.parsing.grammars.grammar_file import write_grammar
from gfnem.parsing.grammars.listing import UsedGrammar, described

NAMES = ["<unk>", *"abcdefg"]


def made(rank=None, shortest=1, labels=LABELS, sharp=1.0):
    torch.manual_seed(0)
    model = SimplePCFG(WORDS, labels, 4, rank, dim=16, shortest=shortest)
    with torch.no_grad():
        model.child *= 4 * sharp
    return model


def dense(model) -> FixedPCFG:
    """The same grammar with a cell for each pair of children."""
    with torch.no_grad():
        root, rules, words = model.tables()
        table = torch.stack([rules.exp().pairs(label)[0] for label in range(rules.labels)]).log()
    return FixedPCFG(root, table, words, model.names())


@pytest.mark.parametrize("rank", [None, 3])
def test_it_is_the_grammar_with_the_same_rules_in_a_table(rank):
    model = made(rank)
    table = dense(model)
    x = Sentences.from_lists(SENTENCES)
    torch.manual_seed(1)
    z = model.sample_posterior(x, 5)
    with torch.no_grad():
        torch.testing.assert_close(model.log_marginal(x), table.log_marginal(x))
        torch.testing.assert_close(model.log_joint(x, z), table.log_joint(x, z))
        for name in ("length_weights", "expected_uses", "in_support", "span_marginals"):
            given = 6 if name == "length_weights" else x
            one, other = (getattr(grammar, name)(given) for grammar in (model, table))
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        brackets = Brackets.from_spans([{(0, 2)}, {(1, 4), (0, 4)}], [3, 4])
        torch.testing.assert_close(model.log_brackets(brackets), table.log_brackets(brackets))


def test_rules_of_low_rank_are_those_of_yang_et_al():
    """`p(A -> B C) = sum_r U[A, r] V[r, B] W[r, C]` over the nonterminals, by its table."""
    model = made(3, labels=4)
    x = Sentences.from_lists(SENTENCES)
    with torch.no_grad():
        component = model.component.softmax(1)
        sides = [
            (net(model.parent) @ model.child.T / model.child.shape[1] ** 0.5).softmax(1)
            for net in model.side_nets
        ]
        rules = torch.einsum("ar,rb,rc->abc", component, *sides)
        root = model.root_net(model.start).squeeze(0).log_softmax(0)
        whole = FixedPCFG(root, rules.log(), model.tables()[2], [str(at) for at in range(4)])
        torch.testing.assert_close(model.log_marginal(x), whole.log_marginal(x))
    assert model.nonterminals == 3 and model.facts()["nonterminals"] == 3


def test_words_that_cannot_be_are_not_derived():
    model = made(shortest=2)
    assert model.in_support(Sentences.from_lists([[1], [1, 2], [3, 4, 5]])).tolist() == [
        False,
        True,
        True,
    ]


@pytest.mark.slow
def test_samples_have_the_probabilities_that_inference_gives():
    model = made(sharp=2.0)
    torch.manual_seed(0)
    x, z = model.sample(3000, max_length=8)
    assert torch.isfinite(model.log_joint(x, z)).all()
    share = model.length_weights(8)
    for length in (1, 2, 3):
        expected = float(share[length - 1] / share.sum())
        found = float((x.lengths == length).float().mean())
        assert found == pytest.approx(expected, abs=4 * (expected / 3000) ** 0.5)


def test_the_file_of_a_grammar_is_read_as_the_same_grammar(tmp_path):
    model = made(sharp=0.5)
    x = Sentences.from_lists([[1, 2, 3], [4, 5, 6, 7], [7, 1], [2, 2, 6, 1, 3]])
    (name,) = write_grammar(model, NAMES, [x], tmp_path)
    assert name == "grammar.pcfg"
    read = TabularGrammar(str(tmp_path / name), NAMES)
    assert read.nonterminals == LABELS
    with torch.no_grad():
        torch.testing.assert_close(
            read.log_marginal(x), model.log_marginal(x), atol=0.02, rtol=0.001
        )
    assert "NT0 -> NT0-left NT0-right [1]" in (tmp_path / name).read_text()


def test_its_symbols_are_described():
    model = made()
    used = UsedGrammar.of(model, [Sentences.from_lists(SENTENCES)])
    symbols = described(used, NAMES)
    assert len(symbols) == LABELS + 4
    nodes = sum(symbol.uses for symbol in symbols if symbol.phrase)
    assert nodes == pytest.approx(sum(len(row) - 1 for row in SENTENCES) / len(SENTENCES), abs=1e-4)


def test_a_table_is_never_made():
    """What 1,000 symbols need stays far below the 10^9 cells of their table."""
    model = SimplePCFG(9, 300, 700, dim=8).double()
    x = Sentences.from_lists([[1, 2, 3, 4, 5], [6, 7]])
    loss = -model.log_marginal(x).sum()
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    assert torch.isfinite(loss)
    model.expected_uses(x), model.length_weights(5), model.sample(5)
