"""Persistent chains of sentences with their trees, for models that a grammar proposes to."""

from __future__ import annotations

from typing import Any

import torch

from gfnem.batch import Batch, Draws
from gfnem.parsing.grammars.sampling import joined
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.policy import Policy
from gfnem.ranges import Count
from gfnem.sources import Source, needs
from gfnem.space import LatentSpace
from gfnem.target import Target


class SentenceChains(Source):
    """Pairs `(x, z)` of an `EnergyGrammar` itself, observations included.

    Each is the end of a chain that goes on from update to update and is offered fresh draws of the
    grammar (independence Metropolis-Hastings): one is accepted with probability
    `min(1, exp(E_old - E_new))`, which leaves the model's distribution as it is. The energy is
    bounded, so chains forget where they were at a geometric rate from anywhere (Mengersen and
    Tweedie 1996, "Rates of convergence of the Hastings and Metropolis algorithms").

    Args:
        samples: chains.
        proposals: draws that each chain is offered in an update.
    """

    def __init__(self, samples: Count = 256, proposals: Count = 1):
        super().__init__()
        self.samples, self.proposals = samples, proposals
        self._ends: tuple[Sentences, Trees] | None = None

    @torch.no_grad()
    def draw(self, batch: Batch) -> Draws:
        """Moves the chains, without autograd; their ends lead with `(chains, 1)`."""
        model: Any = batch.em.model
        x, z = model.propose(self.samples) if self._ends is None else self._ends
        device = model.energy.score.weight.device
        x, z, accepted = x.to(device), z.to(device), 0.0
        for _ in range(self.proposals):
            new_x, new_z = model.propose(self.samples)
            gain = (model.energy(x, z) - model.energy(new_x, new_z))[:, 0]
            accept = torch.rand_like(gain).log() < gain
            x, z = joined([(x, z), (new_x, new_z)], 2 * self.samples)
            rows = torch.arange(self.samples, device=device) + self.samples * accept
            x, z = x[rows], z[rows].resized()
            accepted = accepted + accept.float().mean() / self.proposals
        self._ends = x, z
        batch.figures["accepted"] = accepted
        return Draws(batch.of(x), z)

    def get_extra_state(self) -> dict[str, Any]:
        """Where the chains stand, for a checkpoint."""
        if self._ends is None:
            return {"ends": None}
        x, z = self._ends
        return {"ends": [x.tokens, x.lengths, z.left, z.right, z.split, z.label]}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """The next draw goes on from there."""
        self._ends = None
        if state["ends"] is not None:
            tokens, lengths, *nodes = state["ends"]
            self._ends = Sentences(tokens, lengths), Trees(*nodes, lengths[:, None])

    def check(self, model: Target, space: LatentSpace, policy: Policy) -> None:
        """The model must offer `propose`, draws of a grammar that it is a multiple of."""
        needs(model, "propose", "independence Metropolis-Hastings")
