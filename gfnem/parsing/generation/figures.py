"""How far a sampler of sentences is from its reward, and its parser from its grammar."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from gfnem.estimates import importance_weighted, total_variation
from gfnem.parsing.commands import by_length
from gfnem.parsing.generation.strings import all_sentences, how_many, nothing
from gfnem.parsing.generation.targets import LISTED
from gfnem.parsing.inference.draws import draw_trees
from gfnem.parsing.inference.log_joint import tree_log_joint
from gfnem.parsing.parser import parse
from gfnem.parsing.text.corpus import Corpus
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.scores import SpanF1, right_branching

#: trees drawn for each sentence, and sentences written
_TREES, _WRITTEN = 16, 4096
#: sentences that are weighed together
_ROWS = 512


@torch.no_grad()
def figures(run: Any) -> dict[str, float]:
    """Figures of a trained sampler, in nats.

    Args:
        run: with `model`, `space`, `policy` and `posterior`.

    Returns:
        log_z: exact, where the reward offers it. log_z_learned: what the sampler says.
        log_z_bound: by the importance weights of its own sentences.
        gap: the divergence of its trajectories from `R P_B / Z`. Without an exact log Z the bound
            takes its place, which cannot see what is never written.
        parser_kl: the mean divergence of `P_B` from the grammar's own posterior over trees, on
            sentences that the sampler writes.
        total_variation, kl: of its distribution of sentences from `R / Z`, where all can be listed.
    """
    model, space, policy = run.model, run.space, run.policy
    device = next(policy.parameters()).device
    free = run.posterior(nothing(space.longest, device))
    written, log_weights = free.log_weights(_WRITTEN)
    bound = float(importance_weighted(log_weights)[0])
    found = {"log_z_learned": float(policy.log_z(free.context)[0]), "log_z_bound": bound}
    total = bound
    if model.offers("log_partition"):
        total = found["log_z"] = float(model.log_partition())
    found["gap"] = total - float(log_weights.mean())
    if not policy.unique_trajectory(space):
        found["parser_kl"] = float(parser_divergence(policy, written.sentences()[:_ROWS]).mean())
    if "log_z" in found and how_many(space.vocab_size, space.shortest, space.longest) <= LISTED:
        found |= listed(run, found["log_z"], device)
    return found


def parser_divergence(policy: Any, x: Sentences, samples: int = _TREES) -> Tensor:
    """`(batch,)` estimates of KL(P_B || p(tree | sentence)) in nats, from trees of `P_B`."""
    given = policy.grammar.given(x)
    trees, log_pb = draw_trees(policy.parses(x, given), samples)
    log_p = tree_log_joint(given.potentials, trees).sum(2) - given.log_marginal()[:, None]
    return (log_pb - log_p).mean(1)


def listed(run: Any, log_z: float, device: Any) -> dict[str, float]:
    """Distances of the sampler's distribution from `R / Z`, by a sum over all sentences."""
    space = run.space
    x = all_sentences(space.vocab_size, space.shortest, space.longest).to(device)
    parts = [x[rows] for rows in torch.arange(len(x), device=device).split(_ROWS)]
    log_p = torch.cat([run.policy.log_sentence(part) for part in parts]).double()
    log_r = torch.cat([run.model.log_reward(part) for part in parts]).double() - log_z
    return {
        "total_variation": float(total_variation(log_p, log_r)),
        "kl": float((log_p.exp() * (log_p - log_r)).sum()),
        "sums_to": float(log_p.exp().sum()),
    }


@torch.no_grad()
def likelihood(run: Any, batches: Iterable[Sentences]) -> float:
    """The sampler's own exact NLL of sentences, in nats a token."""
    total, tokens = 0.0, 0
    for x in batches:
        total -= float(run.policy.log_sentence(x.to(run.device)).double().sum())
        tokens += int(x.lengths.sum())
    return total / max(tokens, 1)


def parser_f1(parser: Any, data: Any, corpus: Corpus, limit: int) -> dict[str, float]:
    """F1 of the parser's minimum-risk trees beside right branching, of sentences with gold trees.

    Args:
        parser: `P_B` as a run on text.
        data: numbers the words.
        corpus: sentences and gold spans.
        limit: how many of them are parsed, from the first.
    """
    tokens, gold = corpus.tokens[:limit], corpus.spans[:limit]
    ours, right = SpanF1(), SpanF1()
    for rows in by_length(tokens):
        trees = parse(parser, data.encode([tokens[row] for row in rows])).trees
        for place, row in enumerate(rows):
            if gold[row] is not None:
                length = len(tokens[row])
                ours.update(trees.spans(place), gold[row], length)
                right.update(right_branching(length), gold[row], length)
    return {"sentence_f1": ours.sentence_f1, "right_sentence_f1": right.sentence_f1}
