"""Several runs that parse together."""

import pytest
import torch
from commands import SMALL, call, printed, trained
from nltk import Tree

import gfnem
from gfnem.errors import UserError
from gfnem.parsing import Ensemble
from gfnem.parsing.ensemble import average
from gfnem.parsing.inference.decoding import max_span_tree, span_counts
from gfnem.parsing.parser import Parses, check_pauses, parse
from gfnem.parsing.reader import Reader
from gfnem.parsing.text.preprocessing import Preprocessing
from gfnem.parsing.trees.scores import SpanF1
from gfnem.parsing.trees.treebank import tree_spans
from gfnem.parsing.trees.trees import Trees


def bracketings(left: int, right: int):
    """Every binary tree over a span, as its nodes."""
    if right - left == 1:
        yield []
    for split in range(left + 1, right):
        for first in bracketings(left, split):
            for second in bracketings(split, right):
                yield [(left, right, split, 0), *first, *second]


def mean_f1(nodes, others, length: int) -> float:
    found = []
    for other in others:
        score = SpanF1()
        score.update([node[:2] for node in nodes], [node[:2] for node in other], length)
        found.append(score.sentence_f1)
    return sum(found) / len(found)


@pytest.mark.parametrize("length", [2, 3, 6, 7])
def test_no_tree_agrees_better(length):
    every = list(bracketings(0, length))
    generator = torch.Generator().manual_seed(length)
    for _ in range(10):
        rows = torch.randint(len(every), (5,), generator=generator).tolist()
        others = [every[row] for row in rows]
        trees = [Trees.from_nodes([[nodes]], [length]) for nodes in others]
        agreed = average([span_counts(tree) for tree in trees], torch.tensor([length]))
        best = max(mean_f1(nodes, others, length) for nodes in every)
        spans = agreed.trees.spans(0)
        assert mean_f1(spans, others, length) == pytest.approx(best)
        assert float(agreed.f1[0]) == pytest.approx(best, abs=1e-3)


@pytest.mark.parametrize("length", [3, 6])
def test_no_tree_is_expected_to_agree_better(length):
    """Runs that say how probable each tree is: the mean F1 over all of their trees."""
    every = list(bracketings(0, length))
    torch.manual_seed(length)
    for _ in range(5):
        shares = (2 * torch.randn(3, len(every))).softmax(1)
        counted = torch.cat([span_counts(Trees.from_nodes([[nodes]], [length])) for nodes in every])
        spans = [(share[:, None, None] * counted).sum(0, keepdim=True) for share in shares]
        agreed = average(spans, torch.tensor([length]))

        f1 = torch.tensor([[mean_f1(one, [other], length) for other in every] for one in every])
        expected = f1 @ shares.mean(0)
        best = float(expected.max())
        chosen = max(
            range(len(every)), key=lambda at: mean_f1(agreed.trees.spans(0), [every[at]], length)
        )
        assert float(expected[chosen]) == pytest.approx(best, abs=1e-3)
        assert float(agreed.f1[0]) == pytest.approx(best, abs=1e-3)


def test_a_tree_without_a_vote_does_not_count():
    first, second = list(bracketings(0, 4))[:2]
    spans = [
        span_counts(Trees.from_nodes([[nodes], [nodes]], [4, 4]))
        for nodes in (first, second, second)
    ]
    spans[1][0] = torch.nan  # a run that has no tree may say anything
    votes = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    agreed = average(spans, torch.tensor([4, 4]), votes)
    assert [node[:2] for node in agreed.trees.spans(0)] == [node[:2] for node in first]
    assert [node[:2] for node in agreed.trees.spans(1)] == [node[:2] for node in second]
    assert float(agreed.f1[0]) == 100


def test_one_run_thrice_is_that_run(capsys, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the dog sees a cat with the park\n\na cat sleeps\n")
    alone = printed(capsys, "parse", trained(), text).splitlines()
    together = printed(capsys, "parse", trained(), trained(), trained(), text).splitlines()
    assert together[1] == ""
    for one, other in zip(alone[::2], together[::2], strict=True):
        one, other = Tree.fromstring(one), Tree.fromstring(other)
        assert one.leaves() == other.leaves()
        assert [len(part.leaves()) for part in one.subtrees()] == [
            len(part.leaves()) for part in other.subtrees()
        ]
        assert {part.label() for part in other.subtrees()} == {"X"}


def test_the_front_door(tmp_path):
    ensemble = Ensemble([gfnem.load(trained()), trained()])
    tree = ensemble.parse("the dog sees a cat")
    assert tree.leaves() == "the dog sees a cat".split()
    gold = tmp_path / "gold.mrg"
    gold.write_text("(S (NP (D the) (N dog)) (VP (V sees) (NP (D a) (N cat))))\n")
    figures = ensemble.evaluate(str(gold))
    assert figures["sentence_f1"] == figures["single"][0] == figures["single"][1]
    assert figures["agreement"] == pytest.approx(100)
    by_trees = ensemble.evaluate(str(gold), decode="map")
    assert by_trees["single"][0] == by_trees["sentence_f1"]


WORDS = [["the", "dog", "sees", "a", "cat"]]


def bracketed_f1(nodes, runs) -> float:
    """The F1 that some runs expect of a tree of `WORDS` in the mean, words alone."""
    spans = [parse(run, Reader(run).encode(WORDS)).spans[0] for run in map(gfnem.load, runs)]
    proper = [node[:2] for node in nodes if node[:2] != (0, 5)]
    return 100 * sum(float(each[span]) for each in spans for span in proper) / (3 * len(spans))


@pytest.mark.slow
def test_pauses_are_heeded_where_that_is_asked_for(tmp_path, capsys):
    words, text, gold = tmp_path / "words.txt", tmp_path / "text.txt", tmp_path / "gold.mrg"
    words.write_text("the dog sees a cat\na cat sees the dog\n" * 20)
    assert call("train", *SMALL, "--data", words, "--max-updates=2", "--out", tmp_path / "run") == 0
    text.write_text("the dog sees a cat\nthe , dog sees a , cat\n")
    gold.write_text("(S (NP (D the) (, ,) (N dog)) (VP (V sees) (NP (D a) (, ,) (N cat))))\n")
    alone = printed(capsys, "parse", tmp_path / "run", text).splitlines()
    assert alone[0] == alone[1]
    for runs in ([tmp_path / "run"], [tmp_path / "run"] * 2):
        heeded = printed(capsys, "parse", *runs, text, "--pauses", "true").splitlines()
        tree = Tree.fromstring(heeded[1])
        spans = [" ".join(part.leaves()) for part in tree.subtrees()]
        assert "dog sees a" in spans and heeded[0] != heeded[1]
        front = Ensemble([str(run) for run in runs], pauses=True)
        if len(runs) > 1:  # the trees are others, what the runs expect of trees is not
            pair = [Ensemble(runs, heeds).answer(WORDS, pauses=[[1, 4]])[0] for heeds in (0, 1)]
            assert 0 < float(pair[1].f1) < float(pair[0].f1)
            every = [bracketed_f1(nodes, runs) for nodes in bracketings(0, 5)]
            assert float(pair[0].f1) == pytest.approx(max(every), abs=1e-3)
            assert any(float(pair[1].f1) == pytest.approx(each, abs=1e-3) for each in every)
        assert front.parse("the , dog sees a , cat") == tree
        plain = Ensemble(runs).parse("the , dog sees a , cat")
        for ensemble, found in ((front, tree), (Ensemble(runs), plain)):
            shared = {(0, 2), (2, 5), (3, 5)} & tree_spans(found)
            f1 = ensemble.evaluate(str(gold))["sentence_f1"]
            assert f1 == pytest.approx(100 * len(shared) / 3)
    found = gfnem.load(tmp_path / "run").evaluate(str(gold), pauses=True)
    assert found["pauses"] == 2 and found["sentence_f1"] == 0
    assert "pauses" not in gfnem.load(tmp_path / "run").evaluate(str(gold))
    out = printed(capsys, "evaluate", tmp_path / "run", "--data", gold, "--pauses", "true")
    assert "pauses heeded" in out and "does not compare" in " ".join(out.split())


def test_a_run_that_cannot_derive_a_sentence_has_no_vote_in_its_evaluation(tmp_path, monkeypatch):
    gold = tmp_path / "gold.mrg"
    gold.write_text("(S (NP (D the) (N dog)) (VP (V sees) (NP (D a) (N cat))))\n")
    ensemble = Ensemble([trained(), trained()])
    right, wrong = torch.zeros(2, 1, 5, 6)
    for left, end in ((0, 2), (2, 5), (3, 5), (0, 5)):
        right[:, left, end] = 1
    for left, end in ((0, 4), (1, 4), (2, 4), (0, 5)):
        wrong[:, left, end] = 1.1  # of a sentence that it cannot derive a run says anything
    said = iter((right, wrong))

    def parse(run, x, decode, samples):
        spans = next(said)
        return Parses(None, max_span_tree(spans, x.lengths), None, None, spans)

    monkeypatch.setattr("gfnem.parsing.ensemble.parse", parse)
    can = iter((torch.tensor([True]), torch.tensor([False])))
    monkeypatch.setattr("gfnem.parsing.ensemble.derivable", lambda run, x: next(can))
    figures = ensemble.evaluate(str(gold))
    assert figures["sentence_f1"] == figures["single"][0] == 100 > figures["single"][1]
    assert figures["agreement"] == 100


def test_one_run_by_its_folder():
    assert len(Ensemble(trained()).runs) == 1


def test_what_cannot_be():
    with pytest.raises(UserError, match="no run"):
        Ensemble([])
    with pytest.raises(UserError, match="no common samples"):
        Ensemble([trained(), trained()]).answer([["dog", "sees"]], decode="sample")
    with pytest.raises(UserError, match="decode is map, mbr or sample, not best"):
        Ensemble([trained()]).answer([["dog", "sees"]], decode="best")
    with pytest.raises(UserError, match=r"pauses need decode mbr.* not map"):
        Ensemble([trained()], pauses=True).answer([["dog", "sees"]], decode="map")
    with pytest.raises(UserError, match="this run reads it as words"):
        check_pauses("mbr", Preprocessing(punctuation=True))
