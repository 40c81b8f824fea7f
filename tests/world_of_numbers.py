"""A world of a user's own: numbers are seen, and what they were before the noise is not."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import logsigmoid

from gfnem.batched import Batched
from gfnem.data import DataModule
from gfnem.policy import Policy, Step
from gfnem.space import LatentSpace
from gfnem.target import GenerativeModel
from gfnem.world import Observed, World

VALUES = 3


class Counts(DataModule):
    """Numbers from 0 to 2, of a file with one a line."""

    def __init__(self, path: str | None = None, interval: int = 5, seed: int | None = None):
        super().__init__(10, interval, seed)
        self.numbers = torch.arange(60) % VALUES if path is None else numbers_of(path)

    def facts(self):
        return {"values": VALUES}

    def sizes(self):
        return [1] * len(self.numbers)

    def batch(self, indices):
        return self.numbers[list(indices)]

    def validation_batches(self):
        return [self.numbers[:10]]

    def evaluate(self, module, path=None):
        return {"parameters": float(sum(p.numel() for p in module.model.parameters()))}


def numbers_of(path):
    return torch.tensor([int(line) for line in open(path)])


class Noisy(GenerativeModel):
    """`z` is a number too, and `x` is likely to be the same."""

    unit = "number"

    def __init__(self, values: int | None = None, exact: bool = False):
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(values))
        self.keep = nn.Parameter(torch.tensor(1.0))
        self.values, self.exact = values, exact

    def offers(self, hook):
        return super().offers(hook) and (hook != "log_marginal" or self.exact)

    def log_joint(self, x, z):
        same = z == x[:, None]
        other = logsigmoid(-self.keep) - torch.tensor(float(self.values - 1)).log()
        return self.logits.log_softmax(0)[z] + torch.where(same, logsigmoid(self.keep), other)

    def log_marginal(self, x):
        return self.log_joint(x, torch.arange(self.values).expand(len(x), -1)).logsumexp(1)


@dataclass
class Chosen(Batched):
    number: torch.Tensor  # (batch, samples), -1 while open


class Choice(LatentSpace):
    """One step: the number."""

    unique_trajectory = True

    def __init__(self, values: int | None = None):
        self.values = values

    def initial_state(self, x, samples):
        return Chosen(torch.full((len(x), samples), -1))

    def final_state(self, x, z):
        return Chosen(z)

    def to_latent(self, x, state):
        return state.number

    def is_initial(self, state):
        return state.number < 0

    def is_final(self, state):
        return state.number >= 0

    def forward_mask(self, state):
        return self.is_initial(state)[..., None].expand(-1, -1, self.values)

    def backward_mask(self, state):
        return self.is_final(state)[..., None]

    def step(self, state, action):
        return Chosen(action)

    def unstep(self, state, action):
        return Chosen(torch.full_like(state.number, -1))

    def backward_action(self, state, action):
        return torch.zeros_like(action)

    def forward_action(self, state, action):
        return state.number.clamp(min=0)


class Guess(Policy):
    """A table."""

    def __init__(self, values: int | None = None):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(values, values))

    def encode(self, x, given=None):
        return self.table[x]

    def forward(self, context, state):
        return Step(context[:, None].expand(-1, state.number.shape[1], -1))


class Numbers(World):
    about = "numbers, and what they were before the noise"
    data = "a text file with one number a line"
    parts = {"dataset": Counts, "model": Noisy, "space": Choice, "policy": Guess}  # noqa: RUF012

    def read(self, run, source):
        x = torch.tensor(source) if isinstance(source, list) else numbers_of(source)
        yield Observed(x, x.tolist())

    def latents(self, run, observed, z):
        return [[f"was {value}" for value in row] for row in z.tolist()]


class Unreadable(World):
    parts = Numbers.parts


class Partial(Numbers):
    parts = {"dataset": Counts, "model": Noisy}  # noqa: RUF012
