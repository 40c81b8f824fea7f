"""Drawing and scoring whole trees by their top-down choices (see `choices`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from gfnem.parsing.inference.by_rule import norms_of
from gfnem.parsing.inference.choices import RuleChoices, different_nodes
from gfnem.parsing.inference.nodes import Nodes, grow_trees
from gfnem.parsing.inference.padded import draw_padded, padded_norms
from gfnem.parsing.inference.potentials import Potentials, full_precision
from gfnem.parsing.inference.table_draws import Expansions, Lots, TableDraws
from gfnem.parsing.trees.trees import Trees
from gfnem.sampling import by_weight, moves_from


@torch.no_grad()
def draw_trees(
    choices: RuleChoices,
    samples: int,
    temperature: float | Tensor = 1.0,
    epsilon: float | Tensor = 0.0,
    generator: torch.Generator | None = None,
) -> tuple[Trees, Tensor]:
    """Draws trees top-down, without autograd.

    Args:
        choices: the action weights.
        samples: trees per sentence.
        temperature: every joint action weight (of a root label; of a split and both child labels)
            is raised to `1 / temperature` before normalising.
        epsilon: the probability, at each choice anew, of a uniform one instead: over root labels,
            or over all splits with all child labels.
        generator: the source of randomness, on the weights' device.

    Returns:
        The trees, and `(batch, samples)` their log probability, in nats, under the distribution
        drawn from.
    """
    choices = choices.tempered(temperature) if moves_from(temperature, 1) else choices
    batch, places = len(choices.lengths), choices.max_length - 1
    root_scores = choices.root()
    with full_precision(root_scores):

        def lots(*shape: int) -> Lots:
            return Lots.draw(shape, places, choices.labels, root_scores, epsilon, generator)

        roots = root_scores.softmax(-1)[:, None].repeat(1, samples, 1)
        if moves_from(epsilon, 0):
            chance = torch.rand(batch, samples, 1, generator=generator, device=roots.device)
            roots = roots.masked_fill(chance < epsilon, 1.0)
        symbols = choices.root_symbol(by_weight(roots, generator))
        if choices.padded:
            trees, norms = draw_padded(choices, symbols, lots(places, batch * samples))
        else:
            norms = root_scores.new_zeros(batch, samples, places)
            trees = _draw_grown(choices, symbols, lots, norms)
        scores = _log_probabilities(choices, trees, root_scores, norms, epsilon)
        trees.label = torch.where(trees.mask(), choices.label_of(trees.label), 0)
        return trees, scores.sum(-1)


def _draw_grown(
    choices: RuleChoices, roots: Tensor, lots: Callable[[int], Lots], norms: Tensor
) -> Trees:
    """Annotated trees with these root symbols, grown from them (see `grow_trees`).

    Args:
        choices: the action weights.
        roots: `(batch, samples)` int64.
        lots: makes the random numbers of so many nodes.
        norms: `(batch, samples, places)`, where the log weight of all that each node of three words
            or more may do is put.
    """
    table = choices.potentials.one_table
    expand = TableDraws(choices) if table else partial(_by_options, choices)
    known = norms.view(-1)

    def choose(nodes: Nodes) -> tuple[Tensor, Tensor, Tensor]:
        drawn = expand(nodes, lots(len(nodes)))
        known.index_copy_(0, nodes.slot, drawn.norms)
        return drawn.middle, drawn.first, drawn.second

    return grow_trees(choices.lengths, choices.max_length, roots, choose)


def _by_options(choices: RuleChoices, nodes: Nodes, lots: Lots) -> Expansions:
    """Draws how nodes of three words or more are expanded, whatever the rules.

    Nodes that several samples of a sentence share are weighed once.
    """
    different, at = different_nodes(choices, nodes)
    options = choices.options(different)
    peaks = options.scores.amax(-1, keepdim=True)
    weights = (options.scores - peaks).exp_()
    norms = (weights.sum(-1).log_() + peaks.squeeze(-1)).index_select(0, at)
    weights = weights.index_select(0, at)
    weights = lots.explore_splits(weights, nodes.right - nodes.left, choices.labels)
    column, labels = by_weight(weights, lot=lots.split), iter((lots.one, lots.other))

    def draw(weights: Tensor) -> Tensor:
        return by_weight(lots.explore(weights), lot=next(labels))

    first, second = (
        choices.child_symbol(nodes.label, label) for label in options.children(at, column, draw)
    )
    return Expansions(nodes.left + 1 + column, first, second, norms)


def sample_trees(
    potentials: Potentials, chart: Tensor, samples: int, *args, **kwargs
) -> tuple[Trees, Tensor]:
    """`draw_trees` under a look-ahead chart `(batch, n, n + 1, K, N)`."""
    return draw_trees(RuleChoices.from_chart(potentials, chart), samples, *args, **kwargs)


def score_trees(potentials: Potentials, chart: Tensor, trees: Trees, *args, **kwargs) -> Tensor:
    """`score_choices` under a look-ahead chart `(batch, n, n + 1, K, N)`."""
    return score_choices(RuleChoices.from_chart(potentials, chart), trees, *args, **kwargs)


def score_choices(
    choices: RuleChoices,
    trees: Trees,
    temperature: float | Tensor = 1.0,
    epsilon: float | Tensor = 0.0,
) -> Tensor:
    """Log probability of every choice that builds the given trees, differentiable.

    Nodes that several samples of a sentence share are normalised once.

    Args:
        choices, temperature, epsilon: as in `draw_trees`.
        trees: the trees to score.

    Returns:
        `(batch, samples, 1 + nodes)` nats: the root's label, then each node's split and child
        labels, in preorder; 0 past a tree's nodes and for one-word sentences.
    """
    choices = choices.tempered(temperature) if moves_from(temperature, 1) else choices
    return _score(choices, choices.annotate(trees), epsilon)


def _score(choices: RuleChoices, trees: Trees, epsilon: float | Tensor = 0.0) -> Tensor:
    """As `score_choices`, of annotated trees."""
    roots = choices.root()
    with full_precision(roots):
        if choices.padded:
            norms = padded_norms(choices, trees)
            return _log_probabilities(choices, trees, roots, norms, epsilon)
        width = trees.right - trees.left
        slot = (width > 2).flatten().nonzero().squeeze(1)
        place = torch.zeros(width.numel(), dtype=torch.long, device=width.device)
        norms = roots.new_zeros(1)
        if len(slot):
            row = slot.div(width[0].numel(), rounding_mode="floor")
            parts = (part.flatten()[slot] for part in (trees.left, trees.right, trees.label))
            nodes, at = different_nodes(choices, Nodes(slot, row, *parts))
            norms = torch.cat([norms, norms_of(choices, nodes)])
            place[slot] = at + 1
        norms = norms.index_select(0, place).view(width.shape)
        return _log_probabilities(choices, trees, roots, norms, epsilon)


def _log_probabilities(
    choices: RuleChoices, trees: Trees, roots: Tensor, norms: Tensor, epsilon: float | Tensor
) -> Tensor:
    """`(batch, samples, 1 + nodes)` nats of the choices that build annotated trees.

    Args:
        roots: `(batch, N)` log weights of root labels.
        norms: `(batch, samples, nodes)` log weight of all that each node may do.
    """
    roots = roots.logsumexp(-1)[:, None, None].expand(-1, trees.samples, 1)
    scores = choices.action_weights(trees) - torch.cat([roots, norms], -1)
    if moves_from(epsilon, 0):
        labels, width = choices.labels, trees.right - trees.left
        actions = (width - 3).clamp(min=0) * labels**2 + 2 * labels
        actions = torch.cat([actions.new_full(roots.shape, labels), actions], -1)
        share = torch.zeros_like(roots[:1]) + epsilon
        uniform = share.log() - actions.to(scores.dtype).log()
        scores = torch.logaddexp(scores + (-share).log1p(), uniform)
    return scores.masked_fill(_forced(trees), 0)


def _forced(trees: Trees) -> Tensor:
    """`(batch, samples, 1 + nodes)` bool: entries where nothing is chosen."""
    width = trees.right - trees.left
    one_word = (trees.lengths == 1).unsqueeze(2)
    return torch.cat([one_word, width <= 2], -1)
