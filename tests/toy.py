"""A world small enough to list: bits written into numbered places, in any order.

An observation is an int64 "kind"; kind `k` has `sizes[k]` places. The latent is `(batch, samples,
places)` int64 bits, zero in places that a row does not have.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gfnem.batched import Batched
from gfnem.data import DataModule
from gfnem.mcmc import LocalMoves
from gfnem.policy import Policy, Step
from gfnem.space import LatentSpace
from gfnem.target import GenerativeModel

SIZES = (2, 3, 0)


@dataclass
class Places(Batched):
    value: Tensor  # (batch, samples, places): 0, 1, or -1 where nothing is written yet
    size: Tensor  # (batch, samples)

    def exists(self) -> Tensor:
        return torch.arange(self.value.shape[2], device=self.size.device) < self.size[..., None]

    def free(self) -> Tensor:
        return self.exists() & (self.value < 0)

    def written(self) -> Tensor:
        return self.exists() & (self.value >= 0)


class BitSpace(LatentSpace):
    """Action `2 * place + bit` writes a bit; backward action `place` wipes it."""

    def __init__(self, sizes=SIZES, ordered: bool = False):
        self.sizes = torch.tensor(sizes)
        self.ordered = self.unique_trajectory = ordered  # ordered: from left to right only

    def initial_state(self, x, samples):
        size = self.sizes.to(x.device)[x][:, None].expand(-1, samples)
        return Places(
            torch.full((*size.shape, int(size.max())), -1, device=x.device), size.contiguous()
        )

    def final_state(self, x, z):
        state = self.initial_state(x, z.shape[1])
        return Places(torch.where(state.exists(), z, -1), state.size)

    def to_latent(self, x, state):
        return state.value.clamp(min=0)

    def is_final(self, state):
        return ~state.free().any(2)

    def is_initial(self, state):
        return ~state.written().any(2)

    def forward_mask(self, state):
        free = state.free()
        if self.ordered:
            free = free & (free.cumsum(2) == 1)
        return free.repeat_interleave(2, 2)

    def backward_mask(self, state):
        written = state.written()
        if self.ordered:
            written = written & (written.sum(2, keepdim=True) == written.cumsum(2))
        return written

    def step(self, state, action):
        value = state.value.scatter(2, (action // 2)[..., None], (action % 2)[..., None])
        return Places(value, state.size)

    def unstep(self, state, action):
        return Places(state.value.scatter(2, action[..., None], -1), state.size)

    def moves(self):
        return BitFlips(self.sizes)

    def backward_action(self, state, action):
        return action // 2

    def forward_action(self, state, action):
        bit = state.value.gather(2, action[..., None])[..., 0]
        return 2 * action + bit.clamp(min=0)


class BitFlips(LocalMoves):
    """Flips a bit in a place drawn uniformly; `bias` makes ones likelier than zeros to be left."""

    def __init__(self, sizes=SIZES, bias: float = 0.0):
        self.sizes, self.bias = torch.as_tensor(sizes), bias

    def initial(self, x, samples):
        return x.new_zeros(len(x), samples, int(self.sizes.to(x.device)[x].max()))

    def propose(self, x, z):
        size = self.sizes.to(x.device)[x][:, None].expand(z.shape[:2])
        place = (
            (torch.rand(z.shape[:2], device=z.device) * size)
            .long()
            .clamp(max=max(z.shape[2] - 1, 0))
        )
        if not z.shape[2]:
            return z, torch.full(z.shape[:2], -torch.inf, device=z.device)
        bit = z.gather(2, place[..., None])[..., 0]
        goes = torch.rand(bit.shape, device=bit.device) < torch.where(bit == 1, 1 - self.bias, 1.0)
        flipped = z.scatter(2, place[..., None], (1 - bit)[..., None])
        moved = goes & (size > 0)
        log_stay = torch.tensor(1 - self.bias, device=z.device).log()
        log_ratio = torch.where(bit == 1, -log_stay, log_stay)
        return torch.where(moved[..., None], flipped, z), torch.where(moved, log_ratio, -torch.inf)


class BitModel(GenerativeModel):
    """A normalised table over all pairs of kind and bits: unary terms plus one for each string."""

    def __init__(self, sizes=SIZES, scale: float = 1.0, fixed: bool = False):
        super().__init__()
        self.sizes, self.places = tuple(sizes), max(sizes)
        self.unary = nn.Parameter(scale * torch.randn(len(sizes), self.places, 2))
        self.string = nn.Parameter(scale * torch.randn(len(sizes), 2**self.places))
        self.requires_grad_(not fixed)

    def _parts(self, x, bits: Tensor, written: Tensor) -> tuple[Tensor, Tensor]:
        width = bits.shape[2]
        one_hot = torch.stack([1 - bits, bits], 3) * written[..., None]
        unary = (one_hot * self.unary[x][:, None, :width]).sum((2, 3))
        code = (bits * written * 2 ** torch.arange(width, device=bits.device)).sum(2)
        return unary, self.string[x].gather(1, code)

    def _table(self) -> list[Tensor]:
        """Unnormalised log weights of every string of each kind."""
        rows = []
        for kind, size in enumerate(self.sizes):
            x = torch.tensor([kind], device=self.unary.device)
            z = strings(size).to(x.device)
            rows.append(sum(self._parts(x, z, torch.ones_like(z)))[0])
        return rows

    def _log_total(self) -> Tensor:
        return torch.cat(self._table()).logsumexp(0)

    def log_joint(self, x, z):
        sizes = torch.tensor(self.sizes, device=x.device)[x]
        exists = torch.arange(z.shape[2], device=x.device) < sizes[:, None, None]
        unary, string = self._parts(x, z, exists.expand(z.shape).long())
        return unary + string - self._log_total()

    def partial_log_joint(self, x, state):
        unary, string = self._parts(x, state.value.clamp(min=0), state.written().long())
        complete = ~state.free().any(2)
        return unary + torch.where(complete, string - self._log_total(), 0.0)

    def log_marginal(self, x):
        return torch.stack([row.logsumexp(0) for row in self._table()])[x] - self._log_total()

    @torch.no_grad()
    def sample_posterior(self, x, samples):
        width = int(torch.tensor(self.sizes, device=x.device)[x].max())
        z = x.new_zeros(len(x), samples, width)
        for row, kind in enumerate(x.tolist()):
            size = self.sizes[kind]
            drawn = self.posterior(kind).multinomial(samples, replacement=True)
            z[row, :, :size] = strings(size)[0].to(x.device)[drawn]
        return z

    def posterior(self, kind: int) -> Tensor:
        """Exact `p(z|x)` of a kind's strings in the order of `strings`."""
        return self._table()[kind].detach().softmax(0)

    @torch.no_grad()
    def sample(self, count):
        table = self._table()
        index = torch.cat(table).softmax(0).multinomial(count, replacement=True)
        kinds = torch.cat(
            [torch.full((len(row),), k, device=row.device) for k, row in enumerate(table)]
        )
        every = kinds.new_zeros(len(kinds), self.places)
        for kind, size in enumerate(self.sizes):
            every[kinds == kind, :size] = strings(size)[0].to(kinds.device)
        x = kinds[index]
        width = int(torch.tensor(self.sizes, device=x.device)[x].max())
        return x, every[index][:, None, :width]


class BitPolicy(Policy):
    """A small network with learned forward and backward policies, flows and log Z."""

    log_z_parts = ("normaliser",)

    def __init__(self, sizes=SIZES, hidden: int = 32, uniform_backward=False, scale=1.0):
        super().__init__()
        self.kinds, self.places = len(sizes), max(sizes)
        self.uniform_backward = uniform_backward
        self.network = nn.Sequential(
            nn.Linear(3 * self.places + self.kinds, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, 3 * self.places + 1),
        )
        with torch.no_grad():  # a larger scale makes a random policy more decided
            self.network[-1].weight *= scale
        self.normaliser = nn.Parameter(torch.zeros(self.kinds))

    def encode(self, x, given=None):
        return x

    def forward(self, context, state):
        value, width = state.value, state.value.shape[2]
        shown = value.new_full((*value.shape[:2], self.places), -1)
        shown[..., :width] = value
        features = nn.functional.one_hot(shown + 1, 3).flatten(2).to(self.normaliser)
        kind = nn.functional.one_hot(context, self.kinds).to(self.normaliser)[:, None]
        output = self.network(torch.cat([features, kind.expand(-1, value.shape[1], -1)], 2))
        forward, backward, flow = output.split([2 * self.places, self.places, 1], 2)
        return Step(
            forward[..., : 2 * width],
            None if self.uniform_backward else backward[..., :width],
            flow[..., 0],
        )

    def log_z(self, context):
        return self.normaliser[context]


class BitData(DataModule):
    """Kinds drawn once and for all."""

    def __init__(self, batch_size=8, interval=10, seed=0, kinds=(0, 0, 1, 1, 1, 2, 0, 1), held=()):
        super().__init__(batch_size, interval, seed)
        self.kinds, self.held = torch.tensor(kinds), list(held)

    def facts(self):
        return {}

    def sizes(self):
        return [1] * len(self.kinds)

    def batch(self, indices):
        return self.kinds[list(indices)]

    def validation_batches(self):
        return [torch.tensor(self.held)] if self.held else []


def strings(size: int) -> Tensor:
    """`(1, 2 ** size, size)` all bit strings."""
    return torch.tensor(
        list(itertools.product((0, 1), repeat=size)), dtype=torch.long, device="cpu"
    )[None]
