"""Rewards of whole bracketings, which are no sum over spans: only a sampler can aim at them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfnem.parsing.inference.log_joint import span_scores
from gfnem.parsing.rewards.substrings import Substrings
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.trees import Trees
from gfnem.ranges import Count, NotNegative
from gfnem.schedules import Anneal


class _Whole(Substrings):
    """What rewards of whole bracketings have in common: `Substrings` is where samplers start."""

    recordable = False  # one of them learns

    def offers(self, hook: str) -> bool:
        """No parts, and nothing that partial trees already have; a hint."""
        return hook not in ("parts", "partial") and super().offers(hook)

    def hint(self, x: Sentences) -> Tensor:
        """`(batch, n, n + 1)` nats: the spans of `Substrings`."""
        return self.spans(x)


class Coverage(_Whole):
    """Each word counts once: by the best of the bracketed substrings that it stands in.

    `Substrings` counts every repeated substring of a tree, those within others too, so that a
    substring of five words that is known to the text brings its own parts' worth with it. Here a
    word takes its share `v(s) / |s|` of the best of the spans of two words or more that it stands
    in, and the score is the sum over the words, times `scale`, plus `pauses` and `right` of all
    spans as in `Substrings`. What a span is worth so depends on the spans above and below it.

    Args:
        weight: see `Reward`.
        scale: how much shares of words count; a substring's parts come on top of it in
            `Substrings`, and not here.
        substrings: the other settings of `Substrings`.
    """

    def __init__(
        self, weight: NotNegative | Anneal = 4.0, scale: NotNegative = 2.0, **substrings: Any
    ):
        super().__init__(weight, **substrings)
        self.scale = scale

    @torch.no_grad()
    def forward(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` nats."""
        substrings, rest = self.apart(x)
        width = (z.right - z.left).clamp(min=1)
        share = span_scores(substrings, z) / width
        places = torch.arange(x.max_length, device=share.device)
        inside = (places >= z.left[..., None]) & (places < z.right[..., None])
        best = torch.where(inside, share[..., None], 0.0).amax(2)  # over nodes; 0 if nothing is
        return self.scale * best.sum(2) + span_scores(rest, z).sum(2)


class Agreement(_Whole):
    """Repeated substrings should be bracketed alike wherever they stand in the text.

    `Substrings`, and for each node over a repeated substring of three words or more
    `agreement * log(p(k | s) / uniform)`: how usual its split `k` is among the trees that the
    grammar has learned from lately. The more often a substring has been cut in one way, the more
    the next one is. Which way, the text's other evidence and the grammar decide.

    Args:
        weight: see `Reward`.
        agreement: how much it counts.
        memory: bracketings of a substring that are remembered, in effect: older ones fade.
        substrings: the other settings of `Substrings`.
    """

    def __init__(
        self,
        weight: NotNegative | Anneal = 4.0,
        agreement: NotNegative = 0.25,
        memory: Count = 20,
        **substrings: Any,
    ):
        super().__init__(weight, **substrings)
        self.agreement, self.memory = agreement, memory
        self._forget()

    def _forget(self) -> None:
        uses = torch.zeros(len(self.grams), max(self._longest - 1, 1), device=self.grams.device)
        self.register_buffer("uses", uses, persistent=False)

    def prepare(self, data: Any) -> None:
        """See `Substrings.prepare`."""
        super().prepare(data)
        self._forget()

    def get_extra_state(self) -> dict[str, Tensor]:
        """The table, and what is remembered."""
        return {**super().get_extra_state(), "uses": self.uses.cpu()}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Takes both from a checkpoint."""
        state = dict(state)
        uses = state.pop("uses")
        super().set_extra_state(state)
        self.register_buffer("uses", uses.to(self.grams.device), persistent=False)

    def _nodes(self, x: Sentences, z: Trees) -> tuple[Tensor, Tensor, Tensor]:
        """Nodes over repeated substrings of three words or more: where, their row, their split.

        `(batch, samples, nodes)` bool and int64: which nodes, their row in the table, and the
        number of words on the left less one.
        """
        table = self.table.rows(x.keys, x.lengths)
        row = torch.arange(len(x), device=z.left.device)[:, None, None].expand_as(z.left)
        width = (z.right - z.left).clamp(1, table.shape[1])
        place = table[row, width - 1, z.left]
        fits = z.mask() & (z.right - z.left <= table.shape[1]) & (width > 2) & (place >= 0)
        return fits, place.clamp(min=0), (z.split - z.left - 1).clamp(0, self.uses.shape[1] - 1)

    @torch.no_grad()
    def forward(self, x: Sentences, z: Trees) -> Tensor:
        """`(batch, samples)` nats."""
        total = span_scores(self.spans(x), z).sum(2)
        if not len(self.grams):
            return total
        fits, place, split = self._nodes(x, z)
        uses = self.uses[place]
        cuts = (z.right - z.left - 1).clamp(min=1)
        usual = (uses.gather(3, split[..., None]).squeeze(3) + 1) / (uses.sum(3) + cuts)
        return total + self.agreement * torch.where(fits, (usual * cuts).log(), 0.0).sum(2)

    @torch.no_grad()
    def observe(self, x: Sentences, z: Trees) -> None:
        """Remembers how the trees of an M-step bracket repeated substrings."""
        if not len(self.grams):
            return
        fits, place, split = self._nodes(x, z)
        rows, which = place[fits].unique(return_inverse=True)
        fresh = self.uses.new_zeros(len(rows), self.uses.shape[1])
        share = fresh.new_full(which.shape, 1 / z.samples)
        fresh.index_put_((which, split[fits]), share, accumulate=True)
        kept = (1 - fresh.sum(1, keepdim=True) / self.memory).clamp(min=0)
        self.uses[rows] = self.uses[rows] * kept + fresh
