"""How far a sampler is from its target, exactly: by the sums over all its states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfnem.enumeration import enumerate_states
from gfnem.estimates import jensen_shannon, total_variation
from gfnem.state_graph import StateGraph

#: most states that are listed for `evaluate`
MOST = 1_000_000
#: a mode is kept if the sampler gives it at least so much of what the target does
KEPT = 0.25


def graph_of(space: Any) -> StateGraph:
    """The states of a space that has no observations, at most 10^6.

    Raises:
        ValueError: if there are more.
    """
    return enumerate_states(space, torch.zeros(1, dtype=torch.long), MOST)


@torch.no_grad()
def terminal(graph: StateGraph, policy: Any, x: Tensor) -> Tensor:
    """`(copies, objects)` log P_T of each copy, exact, in double precision."""
    log_pf = graph.scores(policy, policy.encode(x), len(x))[0]
    return graph.log_terminal(log_pf.double())


@torch.no_grad()
def compared(target: Any, graph: StateGraph, log_pt: Tensor) -> dict[str, Tensor]:
    """`(copies,)` figures of distributions `(copies, objects)` over the structures of a graph.

    Returns:
        `jensen_shannon` and `total_variation` from R / Z, and `modes`, how many of the target's
        the sampler keeps, where the target says which structures belong to one.
    """
    z = graph.latents()
    log_p = target.log_joint(graph.x, z)[0].double().log_softmax(0)
    found = {
        "jensen_shannon": jensen_shannon(log_pt, log_p),
        "total_variation": total_variation(log_pt, log_p),
    }
    if target.offers("mode_of"):
        mode = target.mode_of(z)[0]
        numbers, group = mode[mode >= 0].unique(return_inverse=True)
        empty = log_pt.new_zeros(len(log_pt), len(numbers))
        masses = [
            empty.index_add(1, group, log.exp().expand_as(log_pt)[:, mode >= 0])
            for log in (log_pt, log_p)
        ]
        found["modes"] = (masses[0] >= KEPT * masses[1]).sum(1)
    return found


@torch.no_grad()
def scores(run: Any, x: Tensor) -> dict[str, Any]:
    """The figures of a run, means over its copies; nothing where there are too many states."""
    try:
        graph = graph_of(run.space)
    except ValueError:
        return {}
    figures = compared(run.model, graph, terminal(graph, run.policy, x))
    found: dict[str, Any] = {"states": len(graph), "structures": len(graph.ends)}
    found |= {name: value.double().mean().item() for name, value in figures.items()}
    if len(x) > 1:
        found["worst_jensen_shannon"] = figures["jensen_shannon"].max().item()
    error = run.policy.log_z(run.policy.encode(x)).double() - run.model.log_marginal(x).double()
    found["log_z_error"] = error.abs().mean().item()
    return found
