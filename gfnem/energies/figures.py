"""How good an energy and its sampler are, exactly where that is cheap."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfnem.energies.annealed import annealed_log_partition
from gfnem.energies.codes import to_bits
from gfnem.estimates import importance_weighted
from gfnem.refinement import refine


@torch.no_grad()
def scores(run: Any, data: Any, samples: int = 4096) -> dict[str, Any]:
    """The partition sum and the sampler beside the energy.

    Returns:
        `log_z`, exact, or else `log_z_annealed`; `log_z_lower`, the importance-weighted bound of
        the sampler's draws, `log_z_upper`, of rows that chains from the data end in, and
        `log_z_learned`; `sampler_kl`, the divergence of the sampler from the energy (log Z less
        the ELBO); `kl_energy` and `kl_sampler`, of the data from either, where both the data's
        density and the sums are exact.
    """
    found: dict[str, Any] = {}
    exact = run.model.log_partition() if run.model.offers("log_partition") else None
    if exact is not None:
        found["log_z"] = exact.item()
    if run.has_policy:
        free = run.posterior(torch.full((1, data.coding.visible), -1, device=run.device))
        _, log_weights = free.log_weights(samples)
        bound = importance_weighted(log_weights)[0]
        found["log_z_lower"] = bound.item()
        if (learned := free.log_z()) is not None:
            found["log_z_learned"] = learned[0].item()
        if exact is None:
            found["log_z_upper"] = upper_bound(run, free, data, samples // 8).item()
            found["log_z_annealed"] = importance_weighted(
                annealed_log_partition(run.model, 64, 50)
            ).item()
        found["sampler_kl"] = ((bound if exact is None else exact) - log_weights.mean()).item()
    density = getattr(data, "density", None)
    if density is not None and exact is not None and not run.model.latent:
        table = cell_table(run, data)
        data_table = density.table(data.coding.grid).flatten()
        found["kl_energy"] = divergence(data_table, table - exact.cpu().double()).item()
        if run.has_policy and run.space.unique_trajectory:
            found["kl_sampler"] = divergence(data_table, sampler_table(run, data)).item()
    return found


def upper_bound(run: Any, free: Any, data: Any, samples: int) -> Tensor:
    """`()` mean log weight, in nats, of rows drawn by the energy: above log Z on average.

    The rows are those that back-and-forth chains from the data end in: too few moves leave it
    between the data's and the energy's figure.
    """
    x = data.held_out[: max(samples, 1)].long().to(run.device)
    seen = run.space.released(run.posterior(x).sample(1).flatten(0, 1)[None])
    z, log_joint, _ = refine(free.policy, free.context, free.given, run.space, seen, 20, [0.5, 1.0])
    return (log_joint - free.log_prob(z)).mean()


def every_cell(data: Any) -> Tensor:
    """`(cells ** 2, visible)` the rows of all cells, the first coordinate slower."""
    coding = data.coding
    side = 2**coding.bits
    codes = to_bits(torch.arange(side), coding.bits)
    pairs = torch.stack([codes[:, None].expand(-1, side, -1), codes[None].expand(side, -1, -1)], -1)
    return pairs.flatten(2).flatten(0, 1)


def cell_table(run: Any, data: Any) -> Tensor:
    """`(cells ** 2,)` log p~ of all cells, double precision."""
    rows = every_cell(data).to(run.device)
    parts = [run.model.log_joint(part, part[:, None])[:, 0] for part in rows.split(2**14)]
    return torch.cat(parts).cpu().double()


def sampler_table(run: Any, data: Any) -> Tensor:
    """`(cells ** 2,)` log q of all cells: exact where each has one trajectory."""
    rows = every_cell(data).to(run.device)
    posterior = run.posterior(torch.full((1, rows.shape[1]), -1, device=run.device))
    parts = [posterior.log_prob(part[None])[0] for part in rows.split(2**14)]
    return torch.cat(parts).cpu().double()


def divergence(p: Tensor, log_q: Tensor) -> Tensor:
    """`()` `KL(p || q)` in nats of probabilities and log probabilities `(cells,)`."""
    log_p = p.clamp(min=torch.finfo(p.dtype).tiny).log()
    return (p * (log_p - log_q)).sum()
