import pytest
import torch
from brute import all_trees, keys

from gfnem.mcmc import metropolis
from gfnem.parsing.grammars.neural_pcfg import NeuralPCFG
from gfnem.parsing.spaces.moves import TreeMoves
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees


def repeat(trees: Trees, times: int) -> Trees:
    """Every tree `times` times."""
    return trees.map(lambda part: part.repeat_interleave(times, 1))


def transitions(moves, n, labels, times):
    """Empirical transition matrix over all trees, by drawing from each of them."""
    trees = all_trees(n, labels)
    index = {key: place for place, key in enumerate(keys(trees))}
    x = Sentences.from_lists([[1] * n])
    proposed, log_ratio = moves.propose(x, repeat(trees, times))
    assert (log_ratio == 0).all()
    matrix = torch.zeros(len(index), len(index))
    for place, key in enumerate(keys(proposed)):
        matrix[place // times, index[key]] += 1 / times  # a tree that is none has no index
    return matrix


@pytest.mark.slow
@pytest.mark.parametrize(("n", "labels"), [(2, 3), (3, 2), (4, 2), (5, 1)])
def test_proposals_are_trees_symmetric_and_lead_everywhere(n, labels):
    torch.manual_seed(0)
    times = 4000
    matrix = transitions(TreeMoves(labels), n, labels, times)
    error = (matrix * (1 - matrix) / times).sqrt()
    assert ((matrix - matrix.T).abs() <= 5 * (error + error.T) + 1e-9).all()
    reached = torch.linalg.matrix_power((matrix > 0).double() + torch.eye(len(matrix)), 4 * n)
    assert (reached > 0).all()


def test_rotations_by_hand():
    """Of the four-word tree ((0 1) (2 3)) each inner node can be turned in one way only."""
    torch.manual_seed(0)
    moves = TreeMoves(1, rotations=1.0)
    tree = Trees.from_nodes([[[(0, 4, 2, 0), (0, 2, 1, 0), (2, 4, 3, 0)]]], [4])
    x = Sentences.from_lists([[1, 1, 1, 1]])
    proposed, _ = moves.propose(x, repeat(tree, 200))
    shapes = {tuple(sorted(key[:2] for key in tree)) for tree in map(split_key, keys(proposed))}
    assert shapes == {((0, 4), (1, 4), (2, 4)), ((0, 2), (0, 3), (0, 4))}


def split_key(key):
    nodes = len(key) // 4
    return [(key[node], key[nodes + node]) for node in range(nodes)]


def test_short_sentences_beside_a_long_one():
    torch.manual_seed(0)
    x = Sentences.from_lists([[1], [1, 2], [1, 2, 3, 4, 5]])
    moves = TreeMoves(3)
    z = moves.initial(x, 50)
    for _ in range(30):
        new, log_ratio = moves.propose(x, z)
        assert torch.isneginf(log_ratio[0]).all() and (log_ratio[1:] == 0).all()
        z = new.where(torch.rand(3, 50) < 0.5, z)
    for row, n in enumerate((1, 2, 5)):
        assert set(keys(z, row)) <= {
            tuple(key) for key in (keys(all_trees(n, 3)) if n > 1 else [()])
        }
    assert not z.left[:2, :, 1:].any() and not z.label[0].any()


@pytest.mark.slow
def test_chains_end_in_the_exact_posterior():
    """Chi-square of many chains from one fixed tree against exact inference."""
    torch.manual_seed(0)
    model = NeuralPCFG(6, nonterminals=2, preterminals=3, dim=8)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    x = Sentences.from_lists([[1, 2, 3, 4]])
    trees = all_trees(4, 2)
    with torch.no_grad():
        posterior = model.log_joint(x, trees)[0].softmax(0)
    assert posterior.max() > 0.05
    chains = 20_000
    fixed = trees[:, :1]
    z, value, _ = metropolis(TreeMoves(2), model.given(x).log_joint, x, repeat(fixed, chains), 80)
    torch.testing.assert_close(value, model.log_joint(x, z).detach(), rtol=0, atol=1e-4)
    index = {key: place for place, key in enumerate(keys(trees))}
    counts = torch.zeros(len(index))
    for key in keys(z):
        counts[index[key]] += 1
    expected = chains * posterior
    rare = expected < 5  # one tree too many of these would weigh more than all others
    counts, expected = (
        torch.cat([part[~rare], part[rare].sum(0, keepdim=True)]) for part in (counts, expected)
    )
    statistic = ((counts - expected).square() / expected).sum()
    assert len(index) == 40 and statistic < 72.05  # 99.9 % quantile, 39 degrees of freedom


def tensors(trees):
    return trees.left, trees.right, trees.split, trees.label


def test_exact_draws_follow_the_posterior():
    torch.manual_seed(0)
    model = NeuralPCFG(6, nonterminals=2, preterminals=3, dim=8)
    x = Sentences.from_lists([[1, 2, 3, 4]])
    trees = all_trees(4, 2)
    with torch.no_grad():
        posterior = model.log_joint(x, trees)[0].softmax(0)
    index = {key: place for place, key in enumerate(keys(trees))}
    counts = torch.zeros(len(index))
    for key in keys(model.sample_posterior(x, 20_000)):
        counts[index[key]] += 1
    expected = 20_000 * posterior
    assert ((counts - expected).square() / expected).sum() < 72.05
