"""Times an update of an energy and its sampler, beside a straightforward implementation, in turn.

    python experiments/benchmarks/bench_energies.py [--device cuda] [--threads 1]

Points of 2 x 16 bits, batches of 128, networks of 256 units. The straightforward loop is that of
joint training as it is usually written: bits are written one at a time, in any order, and the
network is called once for each step forward, once for each step of a trajectory backward from the
data, and in each step of a chain that goes back and forth, all with autograd on: 132 calls.
"""

from __future__ import annotations

import argparse

import torch
from record import median_seconds, record
from torch import nn

from gfnem.em import EM
from gfnem.energies import AssignmentSpace, MaskedPolicy, MLPEnergy, Points
from gfnem.rates import Descent, Rates
from gfnem.recipes import eb_gfn

BITS, BATCH, HIDDEN = 32, 128, 256


class Straightforward(nn.Module):
    """Trajectory balance and back-and-forth chains, a network call a step."""

    def __init__(self, energy: nn.Module):
        super().__init__()
        self.energy = energy
        widths = [BITS, HIDDEN, HIDDEN, HIDDEN]
        layers = [m for i in range(3) for m in (nn.Linear(widths[i], widths[i + 1]), nn.ELU())]
        self.network = nn.Sequential(*layers, nn.Linear(HIDDEN, 3 * BITS))
        self.log_z = nn.Parameter(torch.zeros(()))
        policy = [*self.network.parameters(), self.log_z]
        self.optimizers = [
            torch.optim.Adam(policy, lr=1e-3),
            torch.optim.Adam(energy.parameters(), lr=1e-3),
        ]

    def heads(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log probabilities of writing a bit and of opening one, of rows with -1 where open."""
        open, output = x == -1, self.network(x)
        # the first of a row without any is never looked at
        write = output[:, : 2 * BITS].masked_fill(~open.repeat_interleave(2, 1), -1e9)
        return write.log_softmax(1), output[:, 2 * BITS :].masked_fill(open, -1e9).log_softmax(1)

    def forth(self, x: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Writes bits; the rows, and log P_F - log P_B of the way. One call a step."""
        ratio = torch.zeros(len(x), device=x.device)
        write, _ = self.heads(x)
        for _ in range(steps):
            action = torch.multinomial(write.exp(), 1)
            ratio = ratio + write.gather(1, action)[:, 0]
            x = x.scatter(1, action // 2, (action % 2).float())
            write, opens = self.heads(x)
            ratio = ratio - opens.gather(1, action // 2)[:, 0]
        return x, ratio

    def back(self, x: torch.Tensor, steps: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Opens bits; the rows, and log P_F - log P_B of the way there. One call a step."""
        ratio = torch.zeros(len(x), device=x.device)
        _, opens = self.heads(x)
        for _ in range(steps):
            place = torch.multinomial(opens.exp(), 1)
            ratio = ratio - opens.gather(1, place)[:, 0]
            redo = 2 * place + x.gather(1, place).long()
            x = x.scatter(1, place, -1.0)
            write, opens = self.heads(x)
            ratio = ratio + write.gather(1, redo)[:, 0]
        return x, ratio

    def reward(self, x: torch.Tensor) -> torch.Tensor:
        """log p~ of complete rows."""
        return self.energy.score(2 * x - 1)

    def update(self, data: torch.Tensor) -> None:
        """Policy on its own trajectories and on data's, then the energy on chains from the data."""
        x, ratio = self.forth(torch.full_like(data, -1.0), BITS)
        loss = (self.log_z + ratio - self.reward(x).detach()).square().mean()
        _, ratio = self.back(data, BITS)
        loss = loss + (self.log_z + ratio - self.reward(data).detach()).square().mean()
        self.descend(0, loss)
        turned, before = self.back(data, BITS)
        x, after = self.forth(turned, BITS)
        ratio = before - after
        accept = (self.reward(x) - self.reward(data) + ratio).sigmoid().detach()
        keep = torch.rand_like(accept) < accept
        x = torch.where(keep[:, None], x, data)
        self.descend(1, self.reward(x).mean() - self.reward(data).mean())

    def descend(self, which: int, loss: torch.Tensor) -> None:
        """One step."""
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()


def main() -> None:
    """Prints both times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    data = Points("circles", bits=16, points=10_000, batch_size=BATCH)
    sizes = (BITS, 2, data.block, data.order)
    parts = MLPEnergy(BITS, 2, hidden=HIDDEN), AssignmentSpace(*sizes)
    policy = MaskedPolicy(*sizes, hidden=HIDDEN)
    ours = Descent(EM(*parts, policy, eb_gfn(samples=BATCH)).to(options.device), Rates())
    theirs = Straightforward(MLPEnergy(BITS, 2, hidden=HIDDEN)).to(options.device)
    x = data.training_batch(0).to(options.device)

    def wait() -> None:
        if options.device == "cuda":
            torch.cuda.synchronize()

    jobs = {
        "this": lambda: ours.update(x),
        "a call a step": lambda: theirs.update(x.float()),
    }
    best: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, job in jobs.items():
            took = median_seconds(job, options.repeats, wait)
            seconds = took.wall if options.device == "cuda" else took.cpu
            best[name] = min(best.get(name, seconds), seconds)
    where = f"{options.device}, 32 bits, batch {BATCH}"
    for name, seconds in best.items():
        print(f"{name:16}{1000 * seconds:9.2f} ms an update")
        record(f"update of an energy and its sampler, {name}, {where}", seconds)
    print(f"ratio {best['a call a step'] / best['this']:.1f}")


if __name__ == "__main__":
    main()
