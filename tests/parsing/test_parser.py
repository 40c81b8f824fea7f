"""From a run and sentences to trees: what is computed of a batch, and how often."""

import pytest
import torch

from gfnem.parsing import NeuralPCFG, Sentences, TopDownPolicy, TopDownSpace
from gfnem.parsing.commands import measure
from gfnem.parsing.grammars.grammar import GivenTrees
from gfnem.parsing.inference import inside as charts
from gfnem.parsing.parser import parse
from gfnem.parsing.text.corpus import read_corpus
from gfnem.running.trained import Trained

WORDS = ["<unk>", "the", "dog", "sees", "a", "cat"]
TREES = ["(S (NP (D the) (N dog)) (VP (V sees) (NP (D a) (N cat))))", "(S (N dog) (V sees))"]


@pytest.fixture
def run():
    torch.manual_seed(0)
    model = NeuralPCFG(len(WORDS), 3, 4, dim=8)
    policy = TopDownPolicy(len(WORDS), 3, dim=8)
    how = {"tokenizer": "space", "lower": False, "digits": False, "punctuation": True}
    metadata = {"vocabulary": WORDS, "preprocessing": how, "min_length": 2, "max_length": 9}
    return Trained(model, TopDownSpace(3), policy, metadata=metadata).requires_grad_(False).eval()


@pytest.fixture
def counted(monkeypatch):
    """How many inside passes there are, and how often a grammar is given sentences."""
    count = {"inside": 0, "given": 0}

    def counting(name, function):
        def wrapper(*args, **kwargs):
            count[name] += 1
            return function(*args, **kwargs)

        return wrapper

    inside = staticmethod(counting("inside", charts._Inside.forward))
    monkeypatch.setattr(charts._Inside, "forward", inside)
    monkeypatch.setattr(GivenTrees, "__init__", counting("given", GivenTrees.__init__))
    return count


@pytest.mark.parametrize(("decode", "passes"), [("mbr", 1), ("map", 1)])
def test_a_batch_is_measured_with_one_inside_pass(run, counted, tmp_path, decode, passes):
    file = tmp_path / "trees.mrg"
    file.write_text("\n".join(TREES * 3))
    how = run.metadata["preprocessing"]
    corpus = read_corpus(str(file), **how, min_length=2, max_length=9)
    counted.update(inside=0, given=0)
    found = measure(run, corpus, decode=decode, samples=4)
    assert found["sentences"] == 6 and found["exact"]
    assert counted == {"inside": passes, "given": 1}


def test_what_was_given_is_as_good_as_the_model(run):
    x = Sentences.from_lists([[1, 2, 3], [1, 2, 3, 4, 5], [2, 3]])
    given = run.target.given(x)
    for decode in ("mbr", "map"):
        mine, theirs = parse(run, x, decode, given=given), parse(run, x, decode)
        assert torch.equal(mine.trees.split, theirs.trees.split)
        torch.testing.assert_close(mine.log_marginal.value, run.model.log_marginal(x))
        torch.testing.assert_close(mine.log_joint, run.model.log_joint(x, mine.trees))
    # the chart that stays is that of the whole, for draws too
    assert given.sample_posterior(2).left.shape[:2] == (3, 2)
    torch.testing.assert_close(given.span_marginals(), run.model.span_marginals(x))
