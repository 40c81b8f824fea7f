"""A trained sampler of sentences: it writes, and where it grows trees it parses."""

from __future__ import annotations

from typing import Any

import torch

from gfnem.errors import UserError
from gfnem.parsing.generation.grammar_sampler import GrammarSampler
from gfnem.parsing.generation.parsed import Parsed, Parser
from gfnem.parsing.generation.strings import nothing
from gfnem.parsing.run import TextRun
from gfnem.parsing.spaces.topdown import TopDownSpace
from gfnem.running.trained import Inference
from gfnem.world import Observed


def as_parser(module: Inference) -> TextRun | None:
    """A trained sampler's `P_B` as a run on text; None for a sampler without trees.

    Args:
        module: the sampler, in training or after it.
    """
    sampler = module.policy
    if not isinstance(sampler, GrammarSampler):
        return None
    space = TopDownSpace(sampler.grammar.nonterminals)
    return TextRun(Parsed(sampler), space, Parser(sampler), metadata=module.metadata)


class SentenceRun(TextRun):
    """A trained sampler of sentences."""

    def parser(self) -> TextRun:
        """The run's `P_B` as a run on text.

        Raises:
            UserError: if the sampler grows no trees.
        """
        found = as_parser(self)
        if found is None:
            name = type(self.policy).__name__
            raise UserError(f"{self.path}: {name} writes sentences without trees: it cannot parse")
        found.world, found.path = self.world, self.path
        return found

    def infer_batch(self, observed: Observed, k: int, samples: int) -> list[dict[str, Any]]:
        """Trees of the sentences by `P_B`; `log_marginal` is the sampler's own, and exact.

        A sampler without trees has no latents.
        """
        if as_parser(self) is not None:
            return self.parser().infer_batch(observed, k, samples)
        with torch.no_grad():
            log_p = self.policy.log_sentence(observed.x).tolist()
        return [
            {"observation": shown, "log_marginal": value, "exact": True, "latents": []}
            for shown, value in zip(observed.shown, log_p, strict=True)
        ]

    @torch.no_grad()
    def sample(self, n: int = 5) -> list[dict[str, Any]]:
        """Sentences that the sampler writes.

        Returns:
            `{"observation": ..., "latent": ..., "log_pf": ..., "log_joint": ...}` each: the words,
            the tree of the trajectory or None, its `log P_F`, and `log R` of the words, in nats.

        Raises:
            UserError: if the sampler's derivations are too long.
        """
        if n < 1:
            raise UserError(f"sample({n}): ask for one or more")
        posterior = self.posterior(nothing(self.space.longest, self.device))
        try:
            found = posterior.trajectories(n)
        except RuntimeError as error:
            raise UserError(f"{self.path}: {error}") from error
        scores = self.policy.score(posterior.context, self.space, found)
        x = found.latent.sentences()
        observed = self.world.observed(self, x)
        trees: list[Any] = [None] * n
        if found.choices is not None:
            z = found.choices.map(lambda tensor: tensor[0][:, None]).resized(x.max_length - 1)
            trees = [row[0] for row in self.world.latents(self.parser(), observed, z)]
        values = zip(
            observed.shown,
            trees,
            scores.log_pf.sum(2)[0].tolist(),
            self.model.log_reward(x).tolist(),
            strict=True,
        )
        names = ("observation", "latent", "log_pf", "log_joint")
        return [dict(zip(names, row, strict=True)) for row in values]
