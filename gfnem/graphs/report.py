"""The report of a run on a table: edge probabilities, graphs, equivalence classes, figures."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gfnem.graphs.drawing import draw_graph, draw_matrix
from gfnem.graphs.equivalence import essential_graphs
from gfnem.graphs.exact import statistics
from gfnem.graphs.measures import drawn_graphs, edges_of
from gfnem.page import Block, Choice, Picture, Posterior, Row, Section, Table, Text, percent
from gfnem.report import STRUCTURES, figures_of, others, ranked
from gfnem.running.curves import png

if TYPE_CHECKING:
    from gfnem.graphs.data import Measurements

#: edges listed by name
_LISTED = 15
#: graphs with parameters drawn for effects
_DRAWN = 500
#: what the figures of this world mean
_ABOUT = {
    "log_evidence": "Log evidence: the exact log probability of the whole table, summed over every "
    "graph.",
    "log_z": "Log z: what the sampler believes it to be.",
    "edges_largest_error": "Edges largest error, edges mean error: the share of the sampler's "
    "draws with an edge, against its exact probability, over all pairs.",
    "tv": "Tv: total variation between the sampler and the exact posterior over all graphs; 0 is "
    "exact, 1 has nothing in common.",
    "e_shd": "E shd: expected structural Hamming distance to the graph given as the truth. Auroc "
    "and auprc: how well edge probabilities rank its edges. Beside them are the exact posterior's: "
    "a sampler that is better than these is biased.",
}


def sections(run: Any, data: Measurements | None, samples: int) -> list[Section]:
    """Edges, graphs and classes, and how good the sampler is.

    Args:
        run: a run on a table.
        data: its data; None where that is not to be had.
        samples: importance samples.
    """
    if data is None:
        return []
    quality = figures_of(run, data, samples)  # first: the figures are those of `gfnem evaluate`
    quality.append(Text(" ".join(_ABOUT.values())))
    x = data.x.to(run.device)
    edges = edges_of(run, x)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        drawn = drawn_graphs(run, x)
    found = [
        Section("Which causes which", [*_edges(edges, data), _farther(drawn, data)]),
        Section("The most probable graphs", _graphs(run, x, drawn, data)),
        Section("What observations cannot tell apart", _classes(drawn, data)),
        Section("How good is it?", quality),
    ]
    if run.model.weighted:
        found.insert(1, Section("What it does to set a variable", [_effects(run, x, data)]))
    return found


def _edges(edges: dict[str, Tensor], data: Measurements) -> list[Block]:
    names, table = data.names, next(iter(edges.values()))
    pictures = [
        Picture(
            png(draw_matrix(edges, names)),
            "How probable each edge is, from the cause in the row to the effect in the column; "
            "dark is probable. The matrices should look alike.",
        )
    ]
    likely = draw_graph(table > 0.5, names, table, data.truth)
    caption = "Edges of more than 50 %, the more probable the darker."
    if data.truth is not None:
        caption += " Orange ones are not in the graph given as the truth."
    pictures.append(Picture(png(likely), caption))
    rows: list[list[Any]] = []
    order = table.flatten().argsort(descending=True)[:_LISTED].tolist()
    for i, j in (divmod(at, len(names)) for at in order):
        row = [f"{names[i]} → {names[j]}", *(percent(float(part[i, j])) for part in edges.values())]
        if data.truth is not None:
            row.append("yes" if data.truth[i, j] else "reversed" if data.truth[j, i] else "no")
        rows.append(row)
    head = ["edge", *edges, *(["in the truth"] if data.truth is not None else [])]
    return [Text(data.summary()), Row(pictures), Table(head, rows, "The most probable edges.")]


def _farther(drawn: Tensor, data: Measurements) -> Block:
    shares = statistics(drawn.cpu())
    tables = {"some path": shares["path"], "Markov blanket": shares["blanket"]}
    return Picture(
        png(draw_matrix(tables, data.names)),
        "Of the graphs drawn, the share in which a path leads from the row to the column, and in "
        "which one is in the Markov blanket of the other: a cause, an effect, or another cause of "
        "one of its effects.",
    )


@torch.no_grad()
def _effects(run: Any, x: Any, data: Measurements) -> Block:
    names, n = data.names, len(data.names)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        given = run.posterior(x) if run.has_policy else None
        z = run.model.sample_posterior(x, _DRAWN) if given is None else given.sample(_DRAWN)
        effects = run.model.effects(z)[0].cpu().flatten(1)
    mean, ends = effects.mean(0), effects.quantile(torch.tensor([0.05, 0.95]).to(effects), 0)
    order = mean.abs().argsort(descending=True).tolist()
    pairs = [(*divmod(at, n), at) for at in order if at % (n + 1)][:_LISTED]
    rows = [
        [f"{names[i]} → {names[j]}", *(float(v[at]) for v in (mean, *ends))] for i, j, at in pairs
    ]
    return Table(
        ["effect", "mean", "5 %", "95 %"],
        rows,
        "By how much a variable moves on average when another is set from 0 to 1 by hand, over "
        "graphs and parameters that the sampler draws; the greatest effects.",
    )


def _graphs(run: Any, x: Any, drawn: Tensor, data: Measurements) -> list[Block]:
    keys = [tuple(row) for row in drawn.flatten(1).tolist()]
    given = run.model.given(x)
    value = given.log_graphs(drawn[None])[0]
    exact = run.model.offers("log_marginal")
    if exact:
        total = given.log_marginal()[0]
    else:  # among the graphs drawn; `ranked` adds up what the draws of one have
        counts = Counter(keys)
        value = value - value.new_tensor([counts[key] for key in keys]).log()
        total = value.logsumexp(0)
    ranks = ranked(keys, (value - total).exp().tolist(), exact, run.has_policy)
    choices = [
        Choice(shares, Picture(png(draw_graph(drawn[at].cpu(), data.names, truth=data.truth))))
        for at, shares in ranks[:STRUCTURES]
    ]
    rest = others(ranks, STRUCTURES, len(keys))
    return [Posterior("Graphs", choices, rest, tiles=True)]


def _classes(drawn: Tensor, data: Measurements) -> list[Block]:
    counts = Counter(tuple(row) for row in drawn.cpu().flatten(1).tolist())
    n = drawn.shape[-1]
    graphs = torch.tensor(list(counts), dtype=torch.bool).view(-1, n, n)
    weights = torch.tensor(list(counts.values()), dtype=torch.float64) / len(drawn)
    found: dict[tuple, float] = {}
    for part, weight in zip(essential_graphs(graphs), weights.tolist(), strict=True):
        key = tuple(part.flatten().tolist())
        found[key] = found.get(key, 0.0) + weight
    ordered = sorted(found.items(), key=lambda entry: -entry[1])[:STRUCTURES]
    choices = []
    for key, share in ordered:
        part = torch.tensor(key).view(n, n)
        who = "share of the draws"
        choices.append(Choice({who: share}, Picture(png(draw_graph(part, data.names)))))
    text = (
        "Graphs with the same links and colliders explain observations equally well. A line "
        "without a head is an edge that can be turned; only experiments, or what is known "
        f"beforehand, decide. {len(found)} such classes are among the {len(counts)} different "
        "graphs drawn."
    )
    return [Text(text), Posterior("Equivalence classes", choices, tiles=True)]
