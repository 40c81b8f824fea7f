"""The posterior over trees of a few sentences, and over the rules that they came from."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from gfnem.parsing.dirichlet.space import Analyses, AnalysesSpace
from gfnem.ranges import Count, Positive
from gfnem.target import Target


class DirichletGrammar(Target[Tensor, Tensor]):
    """`log p(x, z)` of sentences and their trees, probabilities of rules summed out.

    A grammar in Chomsky normal form: a sentence has a nonterminal as its root, a nonterminal two
    symbols as its children, a preterminal a word. Each group of rules that sums to one has a
    symmetric Dirichlet prior (Johnson et al. 2007). There is nothing to train: an observation is
    the whole data set, `(batch, sentences, length)` int64 words, and what all its trees use
    together is counted. Latents are those of `AnalysesSpace`.

    Args:
        nonterminals, preterminals: symbols of the grammar.
        vocabulary: how many words there are.
        alpha: of the Dirichlet priors, for each rule; 1 is uniform.
    """

    unit = "word"

    def __init__(
        self,
        nonterminals: Count = 2,
        preterminals: Count = 2,
        vocabulary: Count = 3,
        alpha: Positive = 1.0,
    ):
        super().__init__()
        self.space = AnalysesSpace(nonterminals, preterminals, vocabulary)
        self.alpha = alpha
        sizes = torch.tensor(self.space.rules.groups)
        self.register_buffer("group", torch.repeat_interleave(torch.arange(len(sizes)), sizes))
        self.register_buffer("sizes", sizes)

    def facts(self) -> dict[str, Any]:
        """The sizes of the grammar."""
        rules = self.space.rules
        return {
            "nonterminals": rules.nonterminals,
            "preterminals": rules.preterminals,
            "vocabulary": rules.vocabulary,
        }

    def totals(self, counts: Tensor) -> Tensor:
        """`(..., groups)` how often a rule of each group is used, from counts `(..., rules)`."""
        found = counts.new_zeros(*counts.shape[:-1], len(self.sizes))
        return found.index_add(-1, self.group, counts)

    def log_counts(self, counts: Tensor) -> Tensor:
        """`(...)` nats: the log probability of uses of rules `(..., rules)`, in a given order."""
        counts, alpha = counts.to(torch.get_default_dtype()), self.alpha
        own = torch.lgamma(counts + alpha).sum(-1) - counts.shape[-1] * math.lgamma(alpha)
        prior = self.sizes * alpha
        return own + (torch.lgamma(prior) - torch.lgamma(self.totals(counts) + prior)).sum(-1)

    def predictive(self, counts: Tensor) -> Tensor:
        """`(..., rules)` log probability that the next use of a group is of each rule, in nats."""
        counts, alpha = counts.to(torch.get_default_dtype()), self.alpha
        whole = self.totals(counts) + self.sizes * alpha
        return (counts + alpha).log() - whole.log()[..., self.group]

    def log_joint(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples)` nats."""
        return self.log_counts(self.space.final_state(x, z).counts)

    def partial_log_joint(self, x: Tensor, state: Analyses) -> Tensor:
        """`(batch, samples)` the joint of the rules used so far."""
        return self.log_counts(state.counts)

    def log_table(self, x: Tensor) -> Tensor:
        """`(sets,)` log joint of every `z` of one observation, in the order of `space.every`.

        The rules of each sentence's trees are counted alone, and the counts added up.
        """
        counts = x.new_zeros(1, len(self.space.rules))
        for sentence in x[0]:
            words = sentence[sentence >= 0]
            if len(words):
                trees = self.space.trees(len(words), x.device)
                own = self.space.final_state(words[None, None], trees[None]).counts[0]
                counts = (counts[:, None] + own).flatten(0, 1)
        return torch.cat([self.log_counts(part) for part in counts.split(50_000)])

    def log_marginal(self, x: Tensor) -> Tensor:
        """`(batch,)` exact `log p(x)` in nats, by listing."""
        return torch.stack([self.log_table(row[None]).logsumexp(0) for row in x])

    @torch.no_grad()
    def sample_posterior(self, x: Tensor, samples: int) -> Tensor:
        """`(batch, samples, steps)` exact draws, by listing."""
        found = []
        for row in x.split(1):
            drawn = self.log_table(row).softmax(0).multinomial(samples, replacement=True)
            found.append(self.space.every(row)[drawn])
        return torch.stack(found)

    @torch.no_grad()
    def sample_parameters(self, x: Tensor, z: Tensor) -> Tensor:
        """`(batch, samples, rules)` probabilities of rules from their exact `p(rules | x, z)`."""
        counts = self.space.final_state(x, z).counts
        gamma = torch._standard_gamma(counts.to(torch.get_default_dtype()) + self.alpha)
        return gamma / self.totals(gamma)[..., self.group]

    def units(self, x: Tensor) -> Tensor:
        """`(batch,)` words of each data set."""
        return (x >= 0).flatten(1).sum(1).to(torch.get_default_dtype())

    def in_support(self, x: Tensor) -> Tensor:
        """`(batch,)` whether every sentence has a tree: two words are the least."""
        return ((x >= 0).sum(2) != 1).all(1)
