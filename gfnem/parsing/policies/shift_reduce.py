"""A shift-reduce policy: the generator's own choices times a learned look-ahead."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from gfnem.parsing.grammars.rnng import RNNG, Stack, Stacks, pick
from gfnem.parsing.policies.encoder import FenceEncoder
from gfnem.parsing.spaces.shift_reduce import REDUCE, SHIFT, ShiftReduceState
from gfnem.parsing.text.sentences import Sentences
from gfnem.parsing.trees.derivations import Derivations
from gfnem.parsing.trees.trees import Trees
from gfnem.policy import Policy, Scores, Step
from gfnem.ranges import Count, Fact
from gfnem.sampling import ON_POLICY, Exploration, draw
from gfnem.space import LatentSpace, Trajectories
from gfnem.target import Conditioned, Target


@dataclass
class Reading:
    """What the policy knows of a batch.

    Attributes:
        x: the sentences.
        places: `(3, batch * (n + 1), hidden)`, what each place between words says where the item
            below the top begins, where the top begins, and where the next word stands.
        model: the generator whose choices are followed, or None.
    """

    x: Sentences
    places: Tensor
    model: RNNG | None


class ShiftReducePolicy(Policy[Sentences, Trees, ShiftReduceState, Reading]):
    """Chooses between SHIFT and REDUCE by what a generator that reads no further would do.

    The log odds of REDUCE are those of the target, where it is an `RNNG`, plus a learned
    look-ahead. The generator knows all of the derivation so far but not the words to come; the
    look-ahead sees the whole sentence (a bidirectional LSTM, at both ends of the topmost item and
    where the one below begins) and the generator's own state. As it starts from nothing, the
    policy is the generator's prior at first, and it follows every M-step at once.

    Args:
        vocab_size: words, the unknown word included; from the data if None.
        stack_size: size of the generator's states; from the model. None where it has none.
        dim: size of word embeddings and LSTM states.
        use_prior: whether to use the target's choices where it offers them.
    """

    def __init__(
        self,
        vocab_size: Fact = None,
        stack_size: Count | None = None,
        dim: Count = 128,
        use_prior: bool = True,
    ):
        super().__init__()
        self.use_prior = use_prior and stack_size is not None
        self.encoder = FenceEncoder(vocab_size, dim)
        hidden = self.encoder.dim_out
        self.ends = nn.Linear(hidden, 3 * hidden)
        self.memory = nn.Linear(stack_size, hidden, bias=False) if self.use_prior else None
        self.mix = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.value = nn.Linear(hidden, 1)
        for parameter in self.value.parameters():
            nn.init.zeros_(parameter)

    def serve(self, target: Target) -> None:
        """Gives up what reads the generator's states where the target is none."""
        if not isinstance(target, RNNG):
            self.use_prior, self.memory = False, None

    def encode(self, x: Sentences, given: Conditioned | None = None) -> Reading:
        """Reads the sentences, one network call."""
        places = self.ends(self.encoder.fences(x)).flatten(0, 1).chunk(3, 1)
        target = None if given is None else given.target.normalised()
        follows = self.use_prior and isinstance(target, RNNG)
        return Reading(x, torch.stack(places), target if follows else None)

    def _logit(self, context: Reading, begins: tuple[Tensor, Tensor, Tensor], memory=None):
        """`(batch, any number)` learned log odds of REDUCE to SHIFT.

        `begins`: where the item below the top, the top, and the next word begin; `memory`: what
        the generator's state says, if anything.
        """
        row = torch.arange(len(context.x), device=begins[0].device)[:, None]
        offset = row * (context.x.max_length + 1)
        hidden = sum(
            pick(places, begin + offset)
            for places, begin in zip(context.places, begins, strict=True)
        )
        hidden = hidden if memory is None else hidden + memory
        return self.value(self.mix(hidden)).squeeze(-1)

    # ------------------------------------------------------------------ sampling

    @torch.no_grad()
    def sample(
        self,
        context: Reading,
        x: Sentences,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Draws trees step by step, all of them together."""
        state = space.initial_state(x, samples)
        stack = rows = None
        if context.model is not None:
            rows = torch.arange(len(x) * samples, device=x.tokens.device)
            stack = Stack(context.model, len(rows), x.max_length)
        log_behaviour = context.places.new_zeros(len(x), samples)
        for _ in range(2 * x.max_length - 1):
            final = space.is_final(state)
            top, under = state.focus()
            prior, memory = 0.0, None
            if stack is not None:
                seen = stack.state(rows)
                prior = context.model.close_logit(seen, torch.zeros_like(rows, dtype=torch.bool))
                prior, memory = prior.view(final.shape), self.memory(seen).view(*final.shape, -1)
            logit = prior + self._logit(context, (under, top, state.read), memory)
            weights = torch.stack([torch.zeros_like(logit), logit], 2)
            action, log_drawn = draw(weights, space.forward_mask(state), exploration or ON_POLICY)
            log_behaviour = log_behaviour + log_drawn.masked_fill(final, 0.0)
            if stack is not None:
                shift = (action == SHIFT) & ~final
                words = x.tokens.gather(1, state.read.clamp(max=x.max_length - 1))
                stack.reduce(rows[((action == REDUCE) & ~final).flatten()])
                stack.shift(rows[shift.flatten()], words[shift])
            state = state.where(final, space.step(state, action))
        return Trajectories(space.to_latent(x, state), log_behaviour=log_behaviour)

    def retrace(self, context: Reading, x: Sentences, space: LatentSpace, latent: Trees):
        """A tree is its own trajectory."""
        return Trajectories(latent, log_behaviour=context.places.new_zeros(latent.left.shape[:2]))

    # ------------------------------------------------------------------ scoring

    def score(
        self,
        context: Reading,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
    ) -> Scores:
        """Scores whole trees in one call; steps stand in the order of `Derivations`' items."""
        x, z = context.x, trajectories.latent
        stacks = self._stacks(context, z)
        way = Derivations.from_trees(z, x.max_length) if stacks is None else stacks.way
        below = way.below.gather(2, way.begin)
        under = torch.where(below < 0, 0, way.begin.gather(2, below.clamp(min=0)))
        begins = tuple(part.flatten(1) for part in (under, way.begin, way.end))
        logit = self._logit(context, begins, self._memory(stacks)).view(under.shape)
        if stacks is not None:
            logit = logit + pick(self._prior(context, stacks), stacks.after)
        chosen = torch.where(way.shifts, logsigmoid(-logit), logsigmoid(logit))
        free = way.item_mask & (below >= 0) & (way.end < z.lengths.unsqueeze(2))
        log_pf = torch.where(free, chosen, 0.0)
        return Scores(log_pf, torch.zeros_like(log_pf), way.item_mask)

    def forward(self, context: Reading, state: ShiftReduceState) -> Step:
        """Weights of single actions (see `ShiftReduceSpace`), for samplers that go step by step."""
        top, under = state.focus()
        stacks = self._stacks(context, state.completed())
        memory = prior = None
        if stacks is not None:
            way = stacks.way
            at = (way.begin == top.unsqueeze(2)) & (way.end == state.read.unsqueeze(2))
            item = (at & way.item_mask).int().argmax(2, keepdim=True)
            after = torch.where(state.read > 0, stacks.after.gather(2, item).squeeze(2), 0)
            memory = pick(self.memory(stacks.states), after)
            prior = pick(self._prior(context, stacks), after)
        logit = self._logit(context, (under, top, state.read), memory)
        logit = logit if prior is None else logit + prior
        return Step(torch.stack([torch.zeros_like(logit), logit], 2))

    @torch.no_grad()
    def _stacks(self, context: Reading, z: Trees) -> Stacks | None:
        return None if context.model is None else context.model.stacks(context.x, z)

    def _memory(self, stacks: Stacks | None) -> Tensor | None:
        if stacks is None:
            return None
        return pick(self.memory(stacks.states), stacks.after.flatten(1))

    @torch.no_grad()
    def _prior(self, context: Reading, stacks: Stacks) -> Tensor:
        return context.model.close_logit(stacks.states, stacks.depths < 0)
