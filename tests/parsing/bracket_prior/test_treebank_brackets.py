"""What a grammar says of trees without words, and learning from such trees."""

import itertools

import pytest
import torch
from brute import all_trees, spans_of

from gfnem.errors import UserError
from gfnem.parsing import RNNG, NeuralParentPCFG, NeuralPCFG, Sentences, TreebankBrackets
from gfnem.parsing.bracket_prior.brackets import Brackets, agreeing, all_bracketings

WORDS = 2
GRAMMARS = (NeuralPCFG, NeuralParentPCFG)


def grammar(kind, scale=3.0):
    """A small grammar in double precision whose rules differ by several nats."""
    torch.manual_seed(5)
    model = kind(WORDS, nonterminals=2, preterminals=2, dim=8).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    return model


def every_text(n: int) -> Sentences:
    return Sentences.from_lists(list(itertools.product(range(WORDS), repeat=n)))


@pytest.mark.parametrize("kind", GRAMMARS)
@pytest.mark.parametrize("spans", [set(), {(0, 2)}, {(1, 3)}, {(1, 4), (2, 4)}, {(0, 2), (2, 4)}])
def test_the_likelihood_of_brackets_is_the_sum_over_texts_labels_and_binary_trees(kind, spans):
    n = 4
    model, trees, x = grammar(kind), all_trees(n, 2), every_text(n)
    held = torch.tensor([spans <= own for own in spans_of(trees)])
    z = trees[torch.zeros(len(x), dtype=torch.long)]
    expected = model.log_joint(x, z)[:, held].flatten().logsumexp(0)
    found = model.log_brackets(Brackets.from_spans([spans | {(0, n)}], [n]))
    torch.testing.assert_close(found, expected[None])


@pytest.mark.parametrize("kind", GRAMMARS)
def test_brackets_of_many_lengths_are_valued_one_by_one_alike(kind):
    """All binary trees of a length together are as probable as sentences of this length."""
    model = grammar(kind)
    spans, lengths = [], []
    for n in (3, 5, 2):
        of_length = spans_of(all_bracketings(n))
        spans += of_length
        lengths += [n] * len(of_length)
    together = model.log_brackets(Brackets.from_spans(spans, lengths))
    alone = [
        model.log_brackets(Brackets.from_spans([s], [n]))
        for s, n in zip(spans, lengths, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone))
    for n in (3, 5, 2):
        total = together[torch.tensor(lengths) == n].logsumexp(0)
        torch.testing.assert_close(total, model.log_marginal(every_text(n)).logsumexp(0))


def test_one_word_has_a_tree_without_brackets():
    model = grammar(NeuralPCFG)
    expected = model.log_marginal(every_text(1)).logsumexp(0)
    torch.testing.assert_close(model.log_brackets(Brackets.from_spans([set()], [1]))[0], expected)


def bank(folder, *lines):
    (folder / "bank.mrg").write_text("\n".join(lines) + "\n")
    return str(folder / "bank.mrg")


RIGHT = "(S (A a) (X (A a) (X (A a) (X (A a) (A a)))))"


@pytest.mark.slow
@pytest.mark.parametrize("kind", GRAMMARS)
def test_a_grammar_learns_the_shapes(kind, tmp_path):
    torch.manual_seed(0)
    side = TreebankBrackets(bank(tmp_path, RIGHT), batch_size=8)
    model = kind(WORDS, nonterminals=2, preterminals=2, dim=8)
    assert "1 sentence kept" in side.prepare(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        (-side.log_likelihood(model)).backward()
        optimizer.step()
    trees = Brackets.from_spans(spans_of(all_bracketings(5)), [5] * 14)
    log_p = model.log_brackets(trees).log_softmax(0)
    (right,) = agreeing(Brackets.from_spans([{(1, 5), (2, 5), (3, 5)}], [5]))
    assert float(log_p[right].detach().exp()) > 0.8


def test_each_tree_comes_as_often_as_any_other(tmp_path):
    """... whatever its length: the mean over many batches is the mean over the treebank."""
    lines = [RIGHT, "(S (A a) (X (A a) (A a)))", "(S (X (A a) (A a)) (A a))"]
    side = TreebankBrackets(bank(tmp_path, *lines), batch_size=1)

    class Counting(torch.nn.Linear):
        def offers(self, hook):
            return hook == "log_brackets"

        def log_brackets(self, brackets):
            rows.append((int(brackets.lengths), bool(brackets.spans[0, 0, 2])))
            return torch.zeros(1)

    rows, model = [], Counting(1, 1)
    side.prepare(model)
    torch.manual_seed(0)
    for _ in range(600):
        side.log_likelihood(model)
    assert all(abs(rows.count(row) - 200) < 50 for row in ((5, False), (3, False), (3, True)))


def test_what_cannot_be_learned_from_is_refused(tmp_path):
    with pytest.raises(UserError, match="no trees in it"):
        (tmp_path / "text").write_text("one two three\n")
        TreebankBrackets(str(tmp_path / "text")).prepare(grammar(NeuralPCFG))
    with pytest.raises(UserError, match="RNNG has no exact likelihood of a bracketing"):
        TreebankBrackets(bank(tmp_path, RIGHT)).prepare(RNNG(10))
    with pytest.raises(ValueError, match="batch_size"):
        TreebankBrackets("bank", batch_size=0)
