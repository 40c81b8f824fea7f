"""How near a sampler's graphs are to the exact posterior, and to a graph that is known."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gfnem.estimates import jensen_shannon, total_variation
from gfnem.graphs.dags import bit_masks, every_dag
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.tables import Tables
from gfnem.posterior import Posterior

#: graphs of so many nodes are compared one by one
LISTED = 5
#: trajectories of a graph that are scored at a time
_CHUNK = 2_000


def against_truth(marginals: Tensor, graphs: Tensor | None, truth: Tensor) -> dict[str, float]:
    """Expected structural Hamming distance, and areas under curves, against a known graph.

    All three are in one order of nodes; pairs of a node with itself do not count.

    Args:
        marginals: `(n, n)` probability of each edge.
        graphs: `(graphs, n, n)` bool draws; None where only marginals are known: then the expected
            distance is that of edges taken one by one, in which a reversed edge counts twice.
        truth: `(n, n)` bool.

    Returns:
        `e_shd` (a missing, a superfluous and a reversed edge count one each), `auroc` and `auprc`.
    """
    off = ~torch.eye(len(truth), dtype=torch.bool, device=truth.device)
    if graphs is None:
        wrong = torch.where(truth, 1 - marginals, marginals)
        distance = float(wrong[off].sum())
    else:
        wrong = graphs != truth
        pairs = (wrong | wrong.mT).triu(1)
        distance = float(pairs.flatten(1).sum(1).double().mean())
    score, label = marginals[off].double(), truth[off]
    return {"e_shd": distance, "auroc": auroc(score, label), "auprc": auprc(score, label)}


def auroc(score: Tensor, label: Tensor) -> float:
    """Probability that a pair with an edge scores higher than one without; both `(pairs,)`."""
    yes, no = score[label], score[~label]
    if not len(yes) or not len(no):
        return float("nan")
    wins = (yes[:, None] > no).double() + 0.5 * (yes[:, None] == no).double()
    return float(wins.mean())


def auprc(score: Tensor, label: Tensor) -> float:
    """Average precision of the ranking of pairs `(pairs,)`; ties are taken together."""
    if not label.any():
        return float("nan")
    total = 0.0
    for value in score.unique().flip(0):
        above = score >= value
        share = (label & (score == value)).sum() / label.sum()
        total += float(share * (label & above).sum() / above.sum())
    return total


def divergences(p: Tensor, q: Tensor) -> dict[str, float]:
    """Total variation and Jensen-Shannon divergence in nats of distributions `(outcomes,)`."""
    logs = p.log(), q.log()
    return {
        "tv": float(total_variation(*logs)),
        "jensen_shannon": float(jensen_shannon(*logs)),
    }


@torch.no_grad()
def over_all_graphs(posterior: Posterior, model: DagPosterior, x: Tables) -> dict[str, float]:
    """Divergences of a sampler from the exact posterior over every graph of at most 5 nodes.

    Where a graph has several trajectories, flows are passed on through all graphs at once.

    Args:
        posterior: the sampler, for the one data set in `x`.
        model: the target.
        x: one data set.
    """
    graphs = every_dag(model.variables).to(x.device)
    log_p = model.log_joint(x, graphs[None])[0]
    possible = torch.isfinite(log_p)  # known edges rule the others out: no policy speaks of them
    graphs, log_p = graphs[possible], log_p[possible]
    if posterior.space.unique_trajectory:
        parts = [posterior.log_prob(part[None])[0] for part in graphs.split(_CHUNK)]
        q = torch.cat(parts).double().exp()
    else:
        q = _flow_through(posterior, graphs)
    return divergences(log_p.softmax(0), q)


def _flow_through(posterior: Posterior, graphs: Tensor) -> Tensor:
    """`(graphs,)` probability that the sampler stops at each, by levels of numbers of edges."""
    from gfnem.sampling import log_probability

    space, n = posterior.space, graphs.shape[-1]
    state = space.final_state(posterior.x, graphs[None])
    state.stopped = torch.zeros_like(state.stopped)
    allowed = space.forward_mask(state)
    output = posterior.policy(posterior.context, state)
    choice = log_probability(output.forward, allowed)[0].double().exp()
    key = bit_masks(graphs.mT.flatten(1))  # as actions are numbered
    order = key.argsort()
    count = graphs.flatten(1).sum(1)
    reach = space.is_initial(state)[0].double()
    for edges in range(int(count.max())):
        rows = (count == edges).nonzero()[:, 0]
        at, edge = allowed[0, rows, : n * n].nonzero().unbind(1)
        source = rows[at]
        target = order[torch.searchsorted(key[order], key[source] + (1 << edge))]
        reach.index_add_(0, target, reach[source] * choice[source, edge])
    return reach * choice[:, -1]


@torch.no_grad()
def joint_divergences(posterior: Posterior, model: Any, x: Tables) -> dict[str, float]:
    """How far graphs and weights of a `CompletedPolicy` are from a `WeightedPosterior`, exactly.

    Over all graphs of at most 5 nodes, where each has one trajectory; the weights of a family are
    normal on both sides, so their divergence is known in closed form.

    Args:
        posterior: the sampler, for the one data set in `x`; a `CompletedPolicy`.
        model: the target.
        x: one data set.

    Returns:
        `kl` of the joint from the sampler to the posterior in nats, `kl_graphs` of the graphs
        alone, and `kl_weights`, the mean over the sampler's graphs of the rest.
    """
    graphs = every_dag(model.variables).to(x.device)
    policy: Any = posterior.policy
    space, context = posterior.space, posterior.context
    log_p = model.given(x).log_graphs(graphs[None])[0]
    possible = torch.isfinite(log_p)
    graphs, log_p = graphs[possible], log_p[possible].log_softmax(0)
    log_q, weights = [], []
    for part in graphs.split(_CHUNK):
        traced = policy.graphs.retrace(context.graphs, x, space, part[None])
        log_q.append(policy.graphs.score(context.graphs, space, traced).log_pf.sum(2)[0].double())
        mean, factor = policy.normal(context, part[None])
        exact_mean, exact_covariance = model.conditional(x, part[None])
        parent = part.mT[None]
        eye = torch.eye(model.variables, dtype=torch.float64, device=x.device)
        inside = parent[..., :, None] & parent[..., None, :]
        exact_covariance = torch.where(inside, exact_covariance, eye)
        one = torch.distributions.MultivariateNormal(mean.double(), scale_tril=factor.double())
        other = torch.distributions.MultivariateNormal(
            torch.where(parent, exact_mean, 0.0), exact_covariance
        )
        weights.append(torch.distributions.kl_divergence(one, other).sum(2)[0])
    log_q, weights = torch.cat(log_q), torch.cat(weights)
    q = log_q.exp()
    found = {"kl_graphs": float((q * (log_q - log_p)).sum()), "kl_weights": float(q @ weights)}
    return {"kl": sum(found.values()), **found}


@torch.no_grad()
def drawn_graphs(run: Any, x: Tables) -> Tensor:
    """`(draws, n, n)` graphs of the sampler, or of exact inference where none was trained.

    4,000 of them; 1,000 where there are more than 11 variables.

    Args:
        run: model, space and policy.
        x: one data set.
    """
    draws = 4000 if run.model.variables <= 11 else 1000
    if not run.has_policy:
        return run.model.graphs(run.model.sample_posterior(x, draws))[0]
    posterior = run.posterior(x)
    return torch.cat([run.model.graphs(posterior.sample(500))[0] for _ in range(draws // 500)])


@torch.no_grad()
def edges_of(run: Any, x: Tables) -> dict[str, Tensor]:
    """`(n, n)` probabilities of edges by who says so: the sampler, exact inference.

    Args:
        run: model, space and policy.
        x: one data set.
    """
    found = {}
    if run.has_policy:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            found["sampler"] = drawn_graphs(run, x).double().mean(0).cpu()
    if run.model.offers("log_marginal"):
        found["exact"] = run.model.marginals(x)[0].edges.cpu()
    return found


@torch.no_grad()
def scores(run: Any, x: Tables, truth: Tensor | None) -> dict[str, float]:
    """Figures of the sampler's graphs, beside exact ones where these are to be had.

    Args:
        run: model, space and policy.
        x: one data set.
        truth: `(n, n)` bool; None where it is not known.
    """
    model: DagPosterior = run.model
    found: dict[str, float] = {}
    drawn = drawn_graphs(run, x) if run.has_policy else None
    sampled = None if drawn is None else drawn.double().mean(0)
    exact = model.marginals(x)[0] if model.offers("log_marginal") else None
    if exact is not None:
        found["log_evidence"] = float(exact.log_evidence)
    if run.has_policy:
        log_z = run.posterior(x).log_z()
        if log_z is not None:
            found["log_z"] = float(log_z[0])
    if exact is not None and sampled is not None:
        gap = (sampled - exact.edges).abs()
        found["edges_largest_error"] = float(gap.max())
        found["edges_mean_error"] = float(gap.sum() / (len(gap) * (len(gap) - 1)))
        posterior = run.posterior(x)
        if model.variables <= LISTED and not model.weighted:
            found |= over_all_graphs(posterior, model, x)
        elif model.variables <= LISTED and posterior.space.unique_trajectory:
            found |= joint_divergences(posterior, model, x)
    if truth is not None:
        truth = truth.to(x.device)
        if sampled is not None:
            found |= against_truth(sampled, drawn, truth)
        if exact is not None:
            graphs = None
            if model.offers("sample_posterior"):
                graphs = model.graphs(model.sample_posterior(x, 4000))[0]
            beside = against_truth(exact.edges, graphs, truth)
            found |= {f"{name}_exact": value for name, value in beside.items()}
    return found
