"""From a trained run and some sentences to trees with their probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gfnem.em import GFlowNetEM
from gfnem.errors import UserError
from gfnem.estimates import LogMarginal
from gfnem.parsing.decoding import max_span_tree, span_counts
from gfnem.parsing.sentences import Sentences
from gfnem.parsing.trees import Trees
from gfnem.posterior import Posterior
from gfnem.target import Target

#: importance samples for each sentence where exact inference does not exist
SAMPLES = 64


@dataclass
class Parses:
    """Trees of a batch of sentences.

    Attributes:
        trees: one or more trees for each sentence.
        log_joint: `(batch, samples)` `log p(x, z)` in nats.
        log_q: `(batch, samples)` `log q(z|x)` of the sampler in nats.
        log_marginal: `log p(x)` with how it was computed.
    """

    trees: Trees
    log_joint: Tensor
    log_q: Tensor
    log_marginal: LogMarginal


@torch.no_grad()
def parse(
    module: GFlowNetEM, x: Sentences, decode: str = "mbr", samples: int | None = None
) -> Parses:
    """Parses a batch of sentences.

    Args:
        module: a trained module over `Trees`.
        x: the sentences.
        decode: "map" for the most probable tree, "mbr" for the tree with the greatest expected
            number of right spans (Goodman 1996), "sample" for draws from the sampler.
        samples: with "sample", how many trees (default 1). Otherwise: None asks for exact inference
            where the model offers it; a number for importance samples instead.
    """
    model = module.model
    solvable = hasattr(model, "span_marginals") and hasattr(model, "best_trees")
    if not module.has_policy and not solvable:
        raise UserError(f"{type(model).__name__} was trained without a sampler: it cannot parse")
    exact = solvable and (samples is None or decode == "sample")
    posterior = module.posterior(x) if module.has_policy else _ExactPosterior(model, x)
    if decode == "sample":
        trees = posterior.sample(samples or 1)
        log_marginal = posterior.log_marginal(None if exact else SAMPLES)
    elif exact:
        trees, value = exact_trees(model, x, decode)
        log_marginal = LogMarginal.from_exact(value)
    else:
        drawn, log_weights = posterior.log_weights(samples or SAMPLES)
        log_marginal = LogMarginal.from_weights(log_weights)
        if decode == "map":
            trees = _pick(drawn, model.log_joint(x, drawn).argmax(1))
        else:
            labels = int(drawn.label.max()) + 1 if drawn.label.numel() else 1
            spans = span_counts(drawn, log_weights.softmax(1), labels=labels)
            trees = _minimum_risk(spans, x.lengths)
    return Parses(trees, model.log_joint(x, trees), posterior.log_prob(trees), log_marginal)


def label_names(module: GFlowNetEM) -> list[str]:
    """A name for each nonterminal: the model's own names where it has any."""
    if hasattr(module.model, "names"):
        return module.model.names()
    return [f"NT{index}" for index in range(module.space.nonterminals)]


@torch.no_grad()
def exact_trees(model: Target, x: Sentences, decode: str) -> tuple[Trees, Tensor]:
    """The best trees by exact inference, and the exact `(batch,)` `log p(x)` in nats."""
    if decode == "map":
        return model.best_trees(x), model.log_marginal(x)
    return _minimum_risk(model.span_marginals(x), x.lengths), model.log_marginal(x)


class _ExactPosterior(Posterior):
    """For runs trained without a sampler: the model's exact posterior in its place."""

    def __init__(self, model: Target, x: Sentences):
        self.model, self.x = model, x
        self.exact = model.log_marginal(x)

    def sample(self, shape=1, temperature: float = 1.0) -> Trees:
        if temperature != 1:
            raise NotImplementedError("exact draws are those of temperature 1")
        return self.model.sample_posterior(self.x, shape)

    def log_prob(self, z: Trees, paths: int = 1) -> Tensor:
        return self.model.log_joint(self.x, z) - self.exact[:, None]

    def log_weights(self, samples: int) -> tuple[Trees, Tensor]:
        trees = self.sample(samples)
        return trees, self.exact[:, None].expand(-1, samples)


def _minimum_risk(spans: Tensor, lengths: Tensor) -> Trees:
    """The best tree for `(batch, n, n + 1, N)` span posteriors, each span with its best label."""
    return max_span_tree(spans.sum(3), lengths, spans.argmax(3))


def _pick(trees: Trees, sample: Tensor) -> Trees:
    rows = torch.arange(len(sample), device=sample.device)
    parts = (trees.left, trees.right, trees.split, trees.label)
    return Trees(*(part[rows, sample][:, None] for part in parts), trees.lengths)
