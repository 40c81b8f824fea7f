"""The shipped grammar that looks at parents is what its header promises."""

from collections import Counter
from itertools import pairwise

import pytest
import torch
from parent_grammar_files import annotated_pcfg

from gfnem.parsing import TabularGrammar, TextData
from gfnem.parsing.grammars.binary_form import read_grammar
from gfnem.parsing.grammars.context_free_fit import context_free_fit, expected_uses
from gfnem.parsing.grammars.tabular import find_grammar


@pytest.fixture(scope="module")
def grammar() -> TabularGrammar:
    return TabularGrammar("english_context")


@pytest.fixture(scope="module")
def tables():
    return read_grammar(find_grammar("english_context"))


@pytest.fixture(scope="module")
def drawn(grammar):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return grammar.sample(2000, max_length=80)


def words(grammar, x, row):
    return [grammar.vocabulary[token] for token in x.tokens[row, : int(x.lengths[row])].tolist()]


def test_sizes(tables):
    assert (len(tables.nonterminals), len(tables.preterminals)) == (26, 37)
    assert 400 <= len(tables.words) <= 700
    assert all(word == word.lower() and word.isalpha() for word in tables.words)


def test_words_have_several_categories(tables):
    categories = (tables.emissions > -torch.inf).any(0).sum(0)
    assert int((categories > 1).sum()) > 50


def test_sentences_of_eight_to_ten_words(grammar):
    assert 8 <= float(expected_uses(grammar)[:, grammar.nonterminals :].sum()) <= 10


def test_nine_sentences_in_ten_have_three_to_twenty_words(drawn):
    lengths = drawn[0].lengths
    assert ((lengths >= 3) & (lengths <= 20)).float().mean() >= 0.9


def test_probabilities_are_written_to_sum_to_one():
    """Not rescaled by the reader, so that the file says what is meant."""
    for line in annotated_pcfg(find_grammar("english_context")).splitlines()[1:]:
        for figure in line.split("[")[1:]:
            p = float(figure.split("]")[0])
            assert abs(round(p, 4) - p) < 1e-9


@pytest.mark.slow
def test_sentences_are_ambiguous(grammar, drawn):
    x, _ = drawn
    rows = [row for row in range(200) if 8 <= int(x.lengths[row]) <= 12][:40]
    x = type(x)(x.tokens[rows, :12], x.lengths[rows])
    torch.manual_seed(0)
    trees = grammar.sample_posterior(x, 50)
    shapes = [
        len({tuple(sorted(trees.spans(row, s))) for s in range(50)}) for row in range(len(rows))
    ]
    assert sum(shapes) / len(shapes) > 1.5


@pytest.mark.slow
def test_it_agrees_with_the_pcfg_over_annotated_symbols(grammar, drawn, tmp_path):
    path = tmp_path / "annotated.pcfg"
    path.write_text(annotated_pcfg(find_grammar("english_context")))
    annotated = TabularGrammar(str(path))
    assert annotated.vocabulary == grammar.vocabulary
    x, _ = drawn
    rows = (x.lengths <= 14).nonzero().squeeze(1)[:20]
    x = type(x)(x.tokens[rows, :14], x.lengths[rows])
    torch.testing.assert_close(grammar.log_marginal(x), annotated.log_marginal(x))
    mine, theirs = (model.span_marginals(x).sum(3) for model in (grammar, annotated))
    torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


def test_case_and_verb_forms_follow_the_parent(grammar, drawn):
    """What no context-free grammar of the same symbols can say."""
    x, _ = drawn
    after = Counter()
    for row in range(len(x)):
        tokens = words(grammar, x, row)
        after.update(pairwise(tokens))
    assert after["saw", "him"] + after["liked", "him"] + after["found", "him"] > 3
    assert not any(after[verb, "he"] for verb in ("saw", "liked", "found", "with"))
    assert sum(count for (first, second), count in after.items() if first == "to" and
               second in ("see", "find", "meet", "watch")) > 3  # fmt: skip
    assert not after["would", "saw"] and not after["will", "found"]


@pytest.mark.slow
def test_a_context_free_grammar_of_the_same_symbols_fits_worse(grammar, drawn):
    fit = context_free_fit(grammar)
    assert fit.cross_entropy > fit.entropy + 2  # nats a sentence, on derivations, exact
    x = drawn[0]
    short = (x.lengths <= 9).nonzero().squeeze(1)[:100]
    x = type(x)(x.tokens[short, :9], x.lengths[short])
    worse = grammar.log_marginal(x) - fit.grammar.log_marginal(x)
    assert float(worse.mean()) > 4 * float(worse.std()) / len(short) ** 0.5
    assert float(worse.sum() / x.lengths.sum()) > 0.1  # nats per token, on sentences


def test_it_is_a_corpus_with_gold_trees(grammar):
    data = TextData(grammar="english_context.ncfg", sentences=50, valid_sentences=5, interval=1)
    assert len(data.train) == 50 and all(data.train.spans)
    assert data.vocabulary.to_list() == grammar.vocabulary
    assert max(map(len, data.train.tokens)) <= 20
