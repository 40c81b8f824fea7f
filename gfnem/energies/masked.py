"""A sampler that writes in a fixed order and scores whole assignments in one pass."""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear, pad, silu

from gfnem.energies.policies import AssignmentNetwork
from gfnem.energies.space import Assignment
from gfnem.policy import Scores, Step
from gfnem.ranges import Amount, Count, Fact
from gfnem.refinement import steps_back
from gfnem.sampling import Exploration, inverted, within
from gfnem.space import LatentSpace, Trajectories

#: most codes of all blocks before that a table may have
_ENTRIES = 2**16


class MaskedPolicy(AssignmentNetwork):
    """An autoregressive network with masked weights (Germain et al. 2015, arXiv 1502.03509).

    What it says of a block depends on the blocks before it alone, so one pass scores all steps of a
    trajectory. Of a row with missing entries it sees, at each step, what stands before. The flow of
    a state is the log of the sum of `p~` over its completions.

    Args:
        variables: how many there are, latent ones included.
        values: values of each.
        block: variables written by one action.
        order: must be "fixed", as of the space.
        hidden: width of the hidden layers.
        layers: number of hidden layers.
        tables: so many blocks, from the second written one on, have a table beside the network: log
            weights of their codes for all codes of all blocks before. What lies close together in
            a row of points then need not be told apart by the network.
        summed: as of the space.
        counts: as of the space.
    """

    log_z_parts = ("level",)

    def __init__(
        self,
        variables: Fact = None,
        values: Fact = None,
        block: Count | None = None,
        order: str | None = None,
        hidden: Count = 512,
        layers: Count = 2,
        tables: Amount = 0,
        summed: Amount | None = None,
        counts: list[Count] | None = None,
    ):
        super().__init__(variables, values, block, order or "fixed", summed, counts)
        if self.order != "fixed":
            raise ValueError(
                "MaskedPolicy writes in a fixed order: dataset.order fixed, or an AssignmentPolicy"
            )
        blocks = self.blocks - self.space.first
        if tables >= blocks or self.options**tables > _ENTRIES:
            raise ValueError(
                f"tables {tables}: of {blocks} blocks of {self.options} codes; fewer tables than "
                f"blocks, and at most {_ENTRIES} entries, are possible"
            )
        self.tables = nn.ParameterList(
            nn.Parameter(torch.zeros(self.options**before, self.options))
            for before in range(1, tables + 1)
        )
        places = self.options ** torch.arange(tables - 1, -1, -1)
        self.register_buffer("places", places, persistent=False)
        self.span = self.block * self.per_variable  # features of a block
        inputs = torch.arange(variables).repeat_interleave(self.per_variable) // self.block
        # a unit sees blocks up to its own number, in rising order; what sees the last would serve
        # nobody, nor what sees a part alone of those that are never written
        least = max(self.space.first - 1, 0)
        units = least + torch.arange(hidden) * max(self.blocks - 1 - least, 1) // hidden
        #: what is written, and so has an output: blocks from the first of these on
        self.first, self.written = self.space.first, self.blocks - self.space.first
        places = torch.arange(self.first, self.blocks + 1) - 1
        outputs = torch.cat([places[:-1].repeat_interleave(self.options), places])  # and the flows
        #: how many units see no more than the first so many blocks
        self.units = [int((units < blocks).sum()) for blocks in range(self.blocks + 1)]
        sees = [inputs, *[units] * layers, outputs]
        self.stages = nn.ModuleList(
            nn.Linear(len(before), len(after)) for before, after in itertools.pairwise(sees)
        )
        for number, (before, after) in enumerate(itertools.pairwise(sees)):
            mask = (before <= after[:, None]).float()
            self.register_buffer(f"mask{number}", mask, persistent=False)
        self.direct = nn.Parameter(torch.zeros(len(outputs), len(inputs)))
        mask = (inputs <= outputs[:, None]).float()
        self.register_buffer("direct_mask", mask, persistent=False)
        nn.init.zeros_(self.stages[-1].weight)
        nn.init.zeros_(self.stages[-1].bias)
        self.level = nn.Parameter(torch.zeros(self.written + 1))
        # log flows where all assignments are equal
        left = variables - self.block * torch.arange(self.written + 1)
        self.register_buffer("start", left * math.log(values), persistent=False)
        ruled_out = None
        if counts is not None:
            ruled_out = ~self.space.possible(torch.device("cpu"))[self.first :]
        self.register_buffer("ruled_out", ruled_out, persistent=False)

    def network(self, value: Tensor) -> Tensor:
        """`(..., outputs)` of assignments `(..., variables)`."""
        features = hidden = self.features(value)
        *stages, last = self.stages
        for number, stage in enumerate(stages):
            hidden = silu(linear(hidden, stage.weight * getattr(self, f"mask{number}"), stage.bias))
        weight = last.weight * getattr(self, f"mask{len(stages)}")
        return linear(hidden, weight, last.bias) + linear(features, self.direct * self.direct_mask)

    def heads(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Logits `(..., written, options)`, and log flows `(..., written + 1)` before each block.

        Of the blocks that are ever written.
        """
        logits, flows = self.network(value).split(
            (self.written * self.options, self.written + 1), -1
        )
        logits = logits.unflatten(-1, (self.written, self.options))
        if self.tables:
            logits = logits + self._looked_up(value)
        if self.ruled_out is not None:
            logits = logits.masked_fill(self.ruled_out, -torch.inf)
        return logits, flows + (self.level + self.start)

    def _looked_up(self, value: Tensor) -> Tensor:
        """`(..., written, options)` what tables say; nothing where a block before is open."""
        code = self.space.code(value)[..., self.first :]
        known = ~self.space.open(value)[..., self.first :]
        found = []
        for before in range(1, len(self.tables) + 1):
            whole = known[..., :before].all(-1, keepdim=True)
            found.append(self._after(code[..., :before]) * whole)
        return pad(torch.stack(found, -2), (0, 0, 1, self.written - 1 - len(found)))

    def _after(self, code: Tensor) -> Tensor:
        """`(..., options)` what the table of the next block says after codes `(..., blocks)`."""
        before = code.shape[-1]
        return embedding((code * self.places[-before:]).sum(-1), self.tables[before - 1])

    def forward(self, context: Any, state: Assignment) -> Step:
        """Scores states one by one."""
        logits, flows = self.heads(state.value)
        open = self.space.open(state.value)[..., self.first :]
        first = torch.where(open.any(-1), open.int().argmax(-1), self.written)
        logits = pad(logits, (0, 0, self.first, 0))
        forward = self.codes(logits, state.value).flatten(-2)
        return Step(forward, None, flows.gather(-1, first.unsqueeze(-1)).squeeze(-1))

    def log_z(self, context: Tensor) -> Tensor:
        """`(batch,)` learned log of the sum of `p~` over completions of what stands first."""
        state = Assignment(context[:, None], context[:, None] >= 0)
        return self.forward(None, state).log_flow.squeeze(1)

    # ---------------------------------------------------------------- whole trajectories

    @torch.no_grad()
    def sample(
        self,
        context: Tensor,
        x: Any,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Draws block after block."""
        known = context[:, None].expand(-1, samples, -1)
        z, log_behaviour = self.complete(known, exploration or Exploration())
        return Trajectories(z, log_behaviour=log_behaviour)

    @torch.no_grad()
    def arithmetic_sample(
        self,
        context: Tensor,
        x: Any,
        space: LatentSpace,
        samples: int,
        exploration: Exploration | None = None,
    ) -> Trajectories:
        """Draws block after block, each by what the block before has left of a number."""
        known = context[:, None].expand(-1, samples, -1)
        z, log_behaviour = self.complete(known, exploration or Exploration(), even=True)
        return Trajectories(z, log_behaviour=log_behaviour)

    @torch.no_grad()
    def retrace(self, context: Tensor, x: Any, space: LatentSpace, latent: Tensor) -> Trajectories:
        """There is one trajectory to each assignment."""
        nothing = self.level.new_zeros(latent.shape[:2])
        return Trajectories(latent, log_behaviour=nothing)

    def complete(
        self, value: Tensor, exploration: Exploration, even: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Writes what is open of `(batch, samples, variables)`.

        Each unit is computed once, when all that it sees is there: together the steps cost as much
        as one pass.

        Args:
            value: values, -1 where open.
            exploration: how draws stray.
            even: whether the samples are spread evenly (see `Policy.arithmetic_sample`); they must
                have the same variables open.

        Returns:
            The assignments, and `(batch, samples)` log probability of what was drawn, in nats.
        """
        shape, digits = value.shape[:-1], self.space.digits(value.device)
        value = value.flatten(0, -2).clone()
        log_behaviour = self.level.new_zeros(len(value))
        steps = self.space.open(value).any(0).tolist()
        if not any(steps):
            return value.unflatten(0, shape), log_behaviour.unflatten(0, shape)
        features = self.features(value)
        layers = [features, *(features.new_zeros(len(value), self.units[-1])
                              for _ in self.stages[:-1])]  # fmt: skip
        known, last = max(self.first - 1, 0), self.stages[-1]  # blocks whose units are there
        blank, shown = not bool((value >= 0).any()), self.features(digits)
        codes, open = self.space.code(value), [block for block, open in enumerate(steps) if open]
        weights, biases = last.weight.split(self.options), last.bias.split(self.options)
        direct = self.direct.split(self.options)
        sizes = [end - first for first, end in itertools.pairwise(self.units)]
        parts = [(stage.weight.split(sizes), stage.bias.split(sizes), layer.split(sizes, 1))
                 for stage, layer in zip(self.stages, layers[1:], strict=False)]  # fmt: skip
        chances = features.new_empty(len(open), len(value), 1).uniform_().unbind()
        lots = _evenly(*shape, value.device) if even else chances[0]
        for block, chance in zip(open, chances, strict=True):
            while known < block:
                known += 1
                self._look(layers, parts, known)
            output, units, seen = block - self.first, self.units[block], block * self.span
            place = slice(block * self.block, (block + 1) * self.block)
            logits = linear(layers[-1][:, :units], weights[output][:, :units], biases[output])
            logits = torch.addmm(logits, features[:, :seen], direct[output][:, :seen].T)
            if 0 < output <= len(self.tables):
                logits = logits + self._after(codes[:, self.first : block])
            if self.ruled_out is not None:
                logits = logits.masked_fill(self.ruled_out[output], -torch.inf)
            there = value[:, place]
            logits = logits if blank else self._agreeing(logits, there)
            log_p = _log_chances(logits, exploration)
            # a draw whose prefix holds no second one may as well have a number of its own
            shared = log_behaviour[:, None] > -math.log(shape[-1])
            if even := even and bool(shared.any()):
                lots, p = torch.where(shared, lots, chance), log_p.double().exp()
                code = inverted(p, lots)
                lots = within(p, lots, code)
            else:
                code = inverted(log_p.exp(), chance)
            log_behaviour += log_p.gather(-1, code).squeeze(-1)
            codes[:, block] = code = code.squeeze(-1)
            if blank:  # a block is its code
                features[:, seen : seen + self.span] = shown[code]
                continue
            value[:, place] = torch.where(there < 0, digits[code], there)
            features[:, seen : seen + self.span] = self.features(value[:, place])
        if blank:
            value[:, self.first * self.block :] = digits[codes[:, self.first :]].flatten(1)
        return value.unflatten(0, shape), log_behaviour.unflatten(0, shape)

    def _look(self, layers: list[Tensor], parts: list[Any], blocks: int) -> None:
        """Computes the units that see the first `blocks` blocks and no fewer.

        Args:
            layers: what is there, features first; the units are added.
            parts: of each hidden layer weights, biases and the layer itself, by groups of units.
            blocks: the group.
        """
        seen = blocks * self.span
        for layer, (weights, biases, units) in zip(layers, parts, strict=False):
            weight, fresh = weights[blocks - 1][:, :seen], units[blocks - 1]
            torch.addmm(biases[blocks - 1], layer[:, :seen], weight.T, out=fresh)
            silu(fresh, inplace=True)
            seen = self.units[blocks]

    def _agreeing(self, logits: Tensor, there: Tensor) -> Tensor:
        """Rules out codes that contradict what is known of blocks `(..., block)`."""
        if not (there >= 0).any():
            return logits
        there = there.unsqueeze(-2)
        agrees = ((there < 0) | (there == self.space.digits(there.device))).all(-1)
        return logits.masked_fill(~agrees, -torch.inf)

    def score(
        self,
        context: Tensor,
        space: LatentSpace,
        trajectories: Trajectories,
        flows: bool = False,
        forward_looking: bool = False,
        steps: int | None = None,
    ) -> Scores:
        """One pass for all steps, however few are asked for.

        Blocks that are observed are no steps, and come first.
        """
        z = trajectories.latent
        log_pf, log_flow, mask = self.steps(context, z)
        nothing = torch.zeros_like(log_pf)
        if not (context >= 0).any():  # all blocks are steps, in their order
            log_z = log_flow[:, 0, 0]
            return Scores(log_pf, nothing, mask, log_z, log_flow if flows else None, guided=False)
        # what stands before the first step is observed, so the flow there is one of the x
        first = torch.where(mask.any(2), mask.int().argmax(2), self.written)
        log_z = log_flow.gather(2, first.unsqueeze(2))[:, 0, 0]
        order = mask.int().argsort(dim=-1, stable=True)
        log_pf, mask = log_pf.gather(2, order), mask.gather(2, order)
        if flows:
            last = torch.full_like(order[..., :1], self.written)
            log_flow = log_flow.gather(2, torch.cat([order, last], 2))
        return Scores(log_pf, nothing, mask, log_z, log_flow if flows else None, guided=False)

    def steps(self, context: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of `(batch, samples, written)` blocks: log P_F, 0 where observed, and whether not.

        The second is `(batch, samples, written + 1)` log flows.
        """
        logits, log_flow = self.heads(z)
        known = context[:, None].expand_as(z)
        if (context >= 0).any():
            logits = self._agreeing(logits, self.space.grouped(known)[..., self.first :, :])
        code = self.space.code(z)[..., self.first :]
        log_pf = logits.log_softmax(-1).gather(-1, code.unsqueeze(-1)).squeeze(-1)
        mask = self.space.open(known)[..., self.first :]
        return log_pf.masked_fill(~mask, 0.0), log_flow, mask

    @torch.no_grad()
    def regrow(
        self, context: Tensor, x: Any, space: LatentSpace, latent: Tensor, back: int | float
    ) -> tuple[Tensor, Tensor]:
        """Opens the last blocks again and writes them anew; see `gfnem.refinement`."""
        known = context[:, None].expand_as(latent)
        open = self.space.open(known)
        steps = steps_back(open.sum(-1), back)
        from_end = open.flip(-1).cumsum(-1).flip(-1)
        undone = (open & (from_end <= steps.unsqueeze(-1))).repeat_interleave(self.block, -1)
        new, log_new = self.complete(torch.where(undone, known, latent), Exploration())
        log_pf, _, _ = self.steps(context, latent)
        redone = self.space.grouped(undone).any(-1)[..., self.first :]
        return new, (log_pf * redone).sum(-1) - log_new


def _evenly(batch: int, samples: int, device: torch.device) -> Tensor:
    """`(batch * samples, 1)` numbers from 0 to 1, double: equidistant from a random first one."""
    first = torch.rand(batch, 1, dtype=torch.double, device=device)
    return ((torch.arange(samples, device=device) + first) / samples).flatten()[:, None]


def _log_chances(logits: Tensor, exploration: Exploration) -> Tensor:
    """`(rows, options)` log probabilities that draws have by log weights of this shape."""
    if exploration.temperature != 1:
        logits = logits / exploration.temperature
    log_p = logits.log_softmax(-1)
    if exploration.epsilon > 0:
        allowed = logits > -torch.inf
        uniform = (allowed / allowed.sum(-1, keepdim=True)).log()
        shares = log_p.new_tensor([1 - exploration.epsilon, exploration.epsilon]).log()
        log_p = torch.logaddexp(log_p + shares[0], uniform + shares[1])
    return log_p
