"""What a report says of a grammar."""

from collections import Counter

import pytest
import torch
from pages import Page

from gfnem.page import render
from gfnem.parsing import NeuralPCFG, TopDownPolicy, TopDownSpace
from gfnem.parsing.parser import parse
from gfnem.parsing.reader import Reader
from gfnem.parsing.report import SYMBOLS, _probabilities, sections
from gfnem.running.run import Run

WORDS = ["<unk>", "<b>", "the", "w" * 90, "שלום"]


def untrained(nonterminals=3, preterminals=4, parent_classes=None, **metadata) -> Run:
    torch.manual_seed(0)
    made = NeuralPCFG(len(WORDS), nonterminals, preterminals, dim=8, parent_classes=parent_classes)
    policy = TopDownPolicy(len(WORDS), nonterminals, dim=8, contexts=made.facts().get("contexts"))
    told = {"vocabulary": WORDS, "preprocessing": {}, "grammar": None, **metadata}
    run = Run(made, TopDownSpace(nonterminals), policy, metadata=told)
    return run.requires_grad_(False).eval()


def pages_of(run, samples=4) -> list[Page]:
    torch.manual_seed(0)
    return [Page(render("", [section])) for section in sections(run, None, samples)]


def test_symbols_with_their_words_and_rules():
    learned, examples, quality = pages_of(untrained())
    assert "3 phrase symbols and 4 word symbols over 5 words" in learned.text
    assert "<b>" in learned.text and "w" * 40 + "…" in learned.text and "w" * 41 not in learned.text
    assert "200 drawn sentences" in learned.text and "stands under" not in learned.text
    assert "that the model makes" in examples.text and "model" in examples.text
    assert quality.tags.count("section") == 0


@pytest.mark.slow
def test_rules_that_look_at_their_parent():
    learned, *_ = pages_of(untrained(parent_classes=3))
    assert "stands under" in learned.text and "the top" in learned.text


@pytest.mark.slow
def test_of_many_symbols_some_are_shown_and_the_rest_counted():
    learned, *_ = pages_of(untrained(nonterminals=24, preterminals=40))
    shown = learned.tags.count("tr") - learned.tags.count("table")
    assert shown == SYMBOLS and learned.tags.count("details") == 2
    assert "25 more symbols" in learned.text and "9 more symbols" in learned.text


def test_a_bar_is_the_posterior_of_a_bracketing():
    """The model's probability of each is how often exact draws have it."""
    run = untrained()
    torch.manual_seed(0)
    x = Reader(run).encode([["the", "<b>", "the", "the"]])
    parses = parse(run, x, "sample", 64)
    p, exact = _probabilities(run, x, parses)
    drawn = Counter(
        tuple(splits) for splits in run.model.sample_posterior(x, 4000).split[0].tolist()
    )
    assert exact and len(drawn) == 5
    for splits, share in zip(parses.trees.split[0].tolist(), p[0].tolist(), strict=True):
        assert share == pytest.approx(drawn[tuple(splits)] / 4000, abs=0.04)
