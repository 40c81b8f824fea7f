"""Scores of words that know how words are written."""

import pytest
import torch

from gfnem.errors import UserError
from gfnem.parsing import NeuralParentPCFG, NeuralPCFG, Sentences, SimplePCFG
from gfnem.parsing.grammars.word_layer import WordLayer, read_vectors, word_features

NAMES = ["<unk>", "walking", "talking", "sing", "Walked", "talked", "42", "10,000", "co-author"]


def test_words_that_look_alike_share_features():
    one, other, third = (set(word_features(word)) for word in ("walking", "talking", "42"))
    assert {"-ing", "-king", "-g", "7 characters"} <= one & other
    assert {"digit", "number", "no letter"} <= third and not one & third
    assert "capital" in word_features("Walked") and "mark inside" in word_features("co-author")
    assert word_features("a") == ["1 characters"]


def test_a_word_never_met_moves_with_words_that_look_like_it():
    torch.manual_seed(0)
    layer = WordLayer(4, len(NAMES), NAMES, forms=True)
    hidden = torch.randn(3, 4)
    before = layer(hidden).detach()
    torch.testing.assert_close(before, torch.nn.functional.linear(hidden, layer.weight, layer.bias))
    optimizer = torch.optim.SGD([layer.parts], lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        (-layer(hidden)[:, 1].sum()).backward()
        optimizer.step()
    gain = (layer(hidden) - before).detach().sum(0)
    assert gain[[2, 3]].tolist() == pytest.approx([float(gain[1])] * 2)  # talking and sing
    assert gain[1] > 1
    assert gain[6].abs() < 1e-6  # 42


def write(tmp_path, text):
    path = tmp_path / "vectors.txt"
    path.write_text(text)
    return path


def test_vectors_of_a_file(tmp_path):
    path = write(tmp_path, "4 2\nwalking 3 4\nwalked 0 1\nWalked 0 5\nother 1 1\n42 5 0\n")
    table = read_vectors(path, NAMES)
    expected = torch.zeros(len(NAMES), 2)
    expected[[1, 4, 6]] = torch.tensor([[3.0, 4], [0, 5], [5, 0]]) / 5  # Walked as it is written
    torch.testing.assert_close(table, expected)
    layer = WordLayer(3, len(NAMES), NAMES, vectors=str(path))
    hidden = torch.randn(2, 3)
    without = torch.nn.functional.linear(hidden, layer.weight, layer.bias)
    same = (layer(hidden) - without).abs().amax(0) < 1e-6
    assert same.tolist() == [word not in ("walking", "Walked", "42") for word in NAMES]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("walking 1 2\nsing 1\n", "line 2: a word and 2 numbers are wanted"),
        ("walking 1 x\n", "line 1: could not convert"),
        ("walking 1 nan\n", "line 1: a number of walking is not finite"),
        ("other 1 2\n", "none of the 9 words of the text has a vector"),
    ],
)
def test_files_that_are_none_are_refused(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        read_vectors(write(tmp_path, text), NAMES)


@pytest.mark.parametrize("kind", [NeuralPCFG, NeuralParentPCFG, SimplePCFG])
def test_grammars_see_how_words_are_written(kind):
    torch.manual_seed(0)
    model = kind(len(NAMES), 3, 4, dim=8, forms=True, vocabulary=NAMES)
    x = Sentences.from_lists([[1, 2, 3], [4, 5]])
    model.log_marginal(x).sum().backward()
    assert model.word_net[-1].parts.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="need the vocabulary"):
        kind(len(NAMES), 3, 4, dim=8, forms=True)
