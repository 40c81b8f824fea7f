"""A policy over dependency trees: weights of arcs times a learned look-ahead."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gfnem.parsing.dependencies.chart import (
    ArcPotentials,
    arc_scores,
    given_halves,
    inside,
    root_weights,
)
from gfnem.parsing.dependencies.space import Half, PartialHeads
from gfnem.parsing.policies.encoder import FenceEncoder
from gfnem.parsing.text.sentences import Sentences
from gfnem.policy import Policy, Scores, Step
from gfnem.ranges import Count, Fact, PartialShare
from gfnem.sampling import Exploration, draw
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Conditioned, Target

#: weights of actions that are looked at together where no gradient is wanted: 256 MB
_AT_ONCE = 2**26


@dataclass
class HalfChoices:
    """Weights of all choices of a batch of sentences.

    With `halves` those of the inside chart (`Chart.halves`), choices are drawn as often as the
    posterior has them.

    Attributes:
        potentials: of arcs.
        halves: `(batch, n, n)` what a half is expected to be worth (see `Chart`).
    """

    potentials: ArcPotentials
    halves: Tensor

    def __post_init__(self):
        self.given = given_halves(self.potentials, self.halves)
        # [k, m]: what the dependent `k` takes of the words between it and the half that is left
        nothing = torch.zeros_like(self.given[:, :, :1])
        to_left = torch.cat([self.given[:, :, 1:], nothing], 2).tril(-1)
        to_right = torch.cat([nothing, self.given[:, :, :-1]], 2).triu(1)
        self.between = to_left + to_right
        self.roots = root_weights(self.potentials, self.halves)

    def log_z(self) -> Tensor:
        """`(batch,)` total weight of the first choice, in nats."""
        return self.roots.logsumexp(1) + self.potentials.base

    def weights(self, state: PartialHeads) -> Tensor:
        """`(batch, samples, n * n)` log weights of the actions of `HeadsSpace`."""
        half = Half.of(state)
        n = self.halves.shape[1]

        def rows(table: Tensor, index: Tensor) -> Tensor:
            return table.gather(1, index[..., None].expand(-1, -1, n))

        first = rows(self.potentials.arcs, half.owner) + rows(self.given.mT, half.last)
        rest = rows(self.halves, (half.owner - 1).clamp(min=0))
        weights = first[..., None] + rest[:, :, None] + self.between[:, None]
        roots = torch.diag_embed(self.roots)[:, None]
        return torch.where((half.owner == 0)[..., None, None], roots, weights).flatten(2)

    def log_flow(self, state: PartialHeads) -> Tensor:
        """`(batch, samples)` log weight of what is chosen times that of open halves, in nats."""
        open_words, n = state.open(), self.halves.shape[1]
        chosen = partial_score(self.potentials, state)
        # an open half is told by its outermost word: the neighbour beyond is not in it
        place = torch.arange(n, device=open_words.device)
        owner = torch.where(open_words, state.owner, -1)
        after = nn.functional.pad(owner[..., 1:], (0, 1), value=-1)
        before = nn.functional.pad(owner[..., :-1], (1, 0), value=-1)
        outer = torch.where(place >= state.owner, after, before) != owner
        place = (state.owner - 1).clamp(min=0) * n + place
        worth = self.halves.flatten(1)[:, None].expand(-1, place.shape[1], -1).gather(2, place)
        flow = chosen + torch.where(open_words & outer, worth, 0.0).sum(2)
        at_start = (state.order == 0).all(2)
        return torch.where(at_start, self.log_z()[:, None], flow)


def partial_score(potentials: ArcPotentials, state: PartialHeads) -> Tensor:
    """`(batch, samples)` log weight of what a state has decided, in nats."""
    arcs = torch.where(state.order > 0, arc_scores(potentials.arcs, state.owner), 0.0).sum(2)
    halves = state.nonempty() * potentials.nonempty[:, None]
    return potentials.base[:, None] + arcs + halves.flatten(2).sum(2)


class HeadsPolicy(Policy[Sentences, Tensor, PartialHeads, HalfChoices]):
    """Divides half after half (see `HeadsSpace`).

    The weight of attaching `k` is that of the arc times what a network expects of the three halves
    that this leaves. The network reads the sentence once and gives this look-ahead for every word
    and every other word that a half of it may reach to; drawing and scoring are then look-ups. With
    the log inside values as look-ahead the policy is the exact posterior, and so is `log Z`.

    Weights of arcs are those of the target where it offers `potentials`, without gradient; else the
    network gives these too.

    Args:
        vocab_size: words, the unknown word included; from the data if None.
        dim: size of word embeddings, LSTM states and hidden layers.
        chart: whether the look-ahead starts from the target's own inside values, which it then
            corrects: for targets with a reward that is no sum over arcs. If not, it starts from
            what the words of a half weigh on average over all heads.
        dropout: of the network, in training.
    """

    def __init__(
        self,
        vocab_size: Fact = None,
        dim: Count = 128,
        chart: bool = False,
        dropout: PartialShare = 0.2,
    ):
        super().__init__()
        assert vocab_size is not None
        self.chart = chart
        self.encoder = FenceEncoder(vocab_size, dim, dropout=dropout)
        size = self.encoder.dim_out
        self.word, self.end = nn.Linear(2 * size, dim), nn.Linear(size, 2 * dim)
        self.width = nn.Embedding(65, dim)
        self.worth = nn.Linear(dim, 1)
        self.level = nn.Embedding(vocab_size, 1)
        self.arc: nn.ModuleList | None = nn.ModuleList(
            [nn.Linear(2 * size, dim), nn.Linear(2 * size, dim)]
        )
        self.wall: nn.Parameter | None = nn.Parameter(torch.zeros(1, 1, dim))
        for part in (self.worth.weight, self.worth.bias, self.level.weight):
            nn.init.zeros_(part)

    def serve(self, target: Target) -> None:
        """Gives up the weights of arcs where the target has its own."""
        if target.offers("potentials"):
            self.arc = self.wall = None

    def is_for_log_z(self, name: str) -> bool:
        """Words' levels, where the arcs have them too: every tree has each word once."""
        return self.arc is not None and name.startswith("level.")

    def encode(self, x: Sentences, given: Conditioned | None = None) -> HalfChoices:
        """Weights of arcs and the look-ahead, one network call.

        Raises:
            ValueError: if the policy was made for a target with potentials, and this has none.
        """
        fences = self.encoder.fences(x)
        words = torch.cat([fences[:, :-1], fences[:, 1:]], 2)
        scores = self.level(x.tokens)[..., 0]
        if given is not None and given.offers("potentials"):
            with torch.no_grad():
                potentials = given.potentials
                whole = inside(potentials).halves if self.chart else None
            if whole is None:
                possible = nn.functional.pad(potentials.mask(), (1, 0), value=True)[..., None]
                mean = potentials.arcs.masked_fill(~possible, -torch.inf).logsumexp(1)
                scores = scores + mean - x.lengths[:, None].log()
        elif self.arc is not None:
            potentials, whole = self._own(x, words, scores), None
        else:
            raise ValueError("this HeadsPolicy follows a target's weights of arcs, and has none")
        return HalfChoices(potentials, self._halves(x, words, fences, scores, whole))

    def _own(self, x: Sentences, words: Tensor, scores: Tensor) -> ArcPotentials:
        assert self.arc is not None and self.wall is not None
        heads, dependents = (part(words) for part in self.arc)
        heads = torch.cat([self.wall.expand(len(heads), -1, -1), heads], 1)
        arcs = heads @ dependents.mT / heads.shape[2] ** 0.5 + scores[:, None]
        nothing = arcs.new_zeros(len(x), x.max_length, 2)
        return ArcPotentials(arcs, nothing, nothing[:, 0, 0], x.lengths)

    def _halves(
        self, x: Sentences, words: Tensor, fences: Tensor, scores: Tensor, whole: Tensor | None
    ) -> Tensor:
        n = x.max_length
        place = torch.arange(n, device=words.device)
        wide = place - place[:, None]
        to_left, to_right = self.end(fences).chunk(2, 2)
        # a half to the left begins before its outermost word, one to the right ends after it
        ends = torch.where((wide > 0)[..., None], to_right[:, None, 1:], to_left[:, None, :-1])
        width = wide.clamp(-32, 32) + 32
        hidden = torch.relu(self.word(words)[:, :, None] + ends + self.width(width))
        total = nn.functional.pad(scores.masked_fill(~x.mask(), 0.0).cumsum(1), (1, 0))
        right = total[:, None, 1:] - total[:, 1:, None]
        left = total[:, :-1, None] - total[:, None, :-1]
        found = self.worth(hidden)[..., 0] + torch.where(wide > 0, right, left)
        found = found if whole is None else found + whole
        return torch.where(wide == 0, 0.0, found)

    def log_z(self, context: HalfChoices) -> Tensor:
        """`(batch,)` total weight of the first choice."""
        return context.log_z()

    def choose(
        self,
        context: HalfChoices,
        space: LatentSpace,
        state: PartialHeads,
        exploration: Exploration,
    ) -> tuple[Tensor, Tensor]:
        """Draws an action; no flow is needed for it."""
        return draw(context.weights(state), space.forward_mask(state), exploration)

    def score(
        self,
        context: HalfChoices,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """As of any policy; where no gradient is wanted, a few samples at a time.

        There are `n^2` actions in each of `n` steps.
        """
        batch, n, _ = context.halves.shape
        samples = trajectories.latent.shape[1]
        at_once = max(1, _AT_ONCE // (batch * (n + 1) * n**2))
        if torch.is_grad_enabled() or samples <= at_once:
            return super().score(context, space, trajectories, flows, forward_looking, steps)
        parts = [
            super(HeadsPolicy, self).score(context, space, part, flows, forward_looking, steps)
            for part in (trajectories[:, at : at + at_once] for at in range(0, samples, at_once))
        ]

        def whole(name: str) -> Tensor | None:
            tensors = [getattr(part, name) for part in parts]
            return None if tensors[0] is None else torch.cat(tensors, 1)

        names = ("log_pf", "log_pb", "mask", "log_flow", "ends", "log_behaviour")
        return replace(parts[0], **{name: whole(name) for name in names})

    def forward(self, context: HalfChoices, state: PartialHeads) -> Step:
        """Weights of actions (see `HeadsSpace`), and the flow."""
        return Step(context.weights(state), log_flow=context.log_flow(state))
