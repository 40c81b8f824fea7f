"""Local scores against independent computations, row by row and cell by cell."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from gfnem.graphs.dags import every_dag, parent_sets
from gfnem.graphs.model import DagPosterior
from gfnem.graphs.scores import BIC, BDeu, BGe
from gfnem.graphs.tables import Tables


def numbers(rows: int = 12, n: int = 3):
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(rows, n, generator=generator, dtype=torch.float64)
    values[:, 1] += 0.8 * values[:, 0]
    return values


def codes(rows: int = 30):
    generator = torch.Generator().manual_seed(2)
    columns = [torch.randint(k, (rows,), generator=generator) for k in (2, 3, 2)]
    columns[2] = torch.where(torch.rand(rows, generator=generator) < 0.7, columns[0], columns[2])
    return torch.stack(columns, 1).double()


def predictive(rows: torch.Tensor, n: int, alpha_mu: float = 1.0) -> float:
    """Log density of rows under a normal-Wishart prior, by Student's t one row after the other.

    For a subset of `l` of `n` variables the Wishart keeps `alpha_w - n + l` degrees of freedom.
    """
    rows, size = rows.numpy(), rows.shape[1]
    alpha_w = n + 2.0
    scale = alpha_mu * (alpha_w - n - 1) / (alpha_mu + 1)
    mean, kappa, df = [0.0] * size, alpha_mu, alpha_w - n + size

    mean, matrix = np.zeros(size), scale * np.eye(size)
    total = 0.0
    for row in rows:
        free = df - size + 1
        shape = matrix * (kappa + 1) / (kappa * free)
        total += stats.multivariate_t.logpdf(row, mean, shape, free)
        matrix = matrix + kappa / (kappa + 1) * np.outer(row - mean, row - mean)
        mean, kappa, df = (kappa * mean + row) / (kappa + 1), kappa + 1, df + 1
    return float(total)


def test_bge_is_the_density_of_the_rows():
    values = numbers()
    table = BGe().table(Tables.of([values]))[0]
    for node, parents in ((0, ()), (1, (0,)), (1, (0, 2)), (2, (1,))):
        number = int(parent_sets(3).lookup[sum(1 << p for p in parents)])
        with_it = predictive(values[:, [*parents, node]], 3)
        without = predictive(values[:, list(parents)], 3) if parents else 0.0
        assert float(table[node, number]) == pytest.approx(with_it - without, abs=1e-8)


def dirichlet(values, node, parents, cards, size):
    """BDeu of one family, cell by cell (Heckerman et al. 1995)."""
    configurations = math.prod(cards[p] for p in parents)
    total, a = 0.0, size / configurations
    for cell in itertools.product(*(range(cards[p]) for p in parents)):
        wanted = dict(zip(parents, cell, strict=True))
        rows = [row for row in values.tolist() if all(row[p] == c for p, c in wanted.items())]
        total += math.lgamma(a) - math.lgamma(a + len(rows))
        for code in range(cards[node]):
            count = sum(row[node] == code for row in rows)
            b = a / cards[node]
            total += math.lgamma(b + count) - math.lgamma(b)
    return total


@pytest.mark.parametrize("size", [1.0, 7.0])
def test_bdeu_counts_cells(size):
    values, cards = codes(), (2, 3, 2)
    table = BDeu(size).table(Tables.of([values]))[0]
    for node, parents in ((0, ()), (1, (0,)), (2, (0, 1)), (0, (2,))):
        number = int(parent_sets(3).lookup[sum(1 << p for p in parents)])
        expected = dirichlet(values, node, parents, cards, size)
        assert float(table[node, number]) == pytest.approx(expected, abs=1e-9)


def test_bic_of_a_regression():
    values = numbers(40)
    table = BIC().table(Tables.of([values]))[0]
    design = torch.cat([torch.ones(40, 1, dtype=torch.float64), values[:, [0, 2]]], 1)
    fit = design @ torch.linalg.lstsq(design, values[:, 1:2]).solution
    variance = float((values[:, 1:2] - fit).square().mean())
    likelihood = -20 * (math.log(2 * math.pi * variance) + 1)
    expected = likelihood - 4 / 2 * math.log(40)
    assert float(table[1, 0b101]) == pytest.approx(expected, abs=1e-5)


def test_bic_of_a_table_of_codes():
    values = codes()
    table = BIC(discrete=True).table(Tables.of([values]))[0]
    likelihood = 0.0
    for a in (0, 1):
        rows = values[values[:, 0] == a]
        for c in (0, 1):
            count = int((rows[:, 2] == c).sum())
            likelihood += count * math.log(count / len(rows)) if count else 0.0
    assert float(table[2, 0b001]) == pytest.approx(likelihood - 2 / 2 * math.log(30), abs=1e-9)


FOUR = numbers(n=4)


@pytest.mark.parametrize(("score", "values"), [(BGe(), FOUR), (BDeu(), None), (BIC(), FOUR)])
def test_equivalent_graphs_have_equal_scores(score, values):
    if values is None:
        values = torch.cat([codes(), codes()[:, :1].roll(1, 0)], 1)
    graphs = every_dag(4)
    joint = DagPosterior(4, score).log_joint(Tables.of([values]), graphs[None])[0]
    classes: dict[tuple, list[float]] = {}
    for graph, value in zip(graphs, joint.tolist(), strict=True):
        skeleton = graph | graph.T
        immoral = tuple(
            (i, k, j)
            for i, j in itertools.combinations(range(4), 2)
            for k in range(4)
            if graph[i, k] and graph[j, k] and not skeleton[i, j]
        )
        key = (tuple(skeleton.flatten().tolist()), immoral)
        classes.setdefault(key, []).append(value)
    assert len(classes) == 185, "Markov equivalence classes of 4 nodes"
    for found in classes.values():
        assert max(found) - min(found) < 1e-6


def test_rows_set_by_hand_do_not_count_for_their_family():
    values = numbers(20)
    hand = torch.zeros(20, 3, dtype=torch.bool)
    hand[:8, 1] = True
    mixed = BGe().table(Tables.of([values], [hand]))[0]
    whole = BGe().table(Tables.of([values]))[0]
    seen = BGe().table(Tables.of([values[8:]]))[0]
    assert torch.allclose(mixed[[0, 2]], whole[[0, 2]]) and torch.allclose(mixed[1], seen[1])


def test_few_parents_are_a_part_of_the_table():
    values = Tables.of([numbers(n=4)])
    whole, few = BGe().table(values)[0], BGe().table(values, 1)[0]
    assert torch.allclose(whole[:, parent_sets(4, 1).masks], few)


def test_levels_that_do_not_occur():
    """Of all tables of one row that two variables of three levels have, one is there."""
    rows = [torch.tensor([cell]) for cell in itertools.product(range(3), repeat=2)]
    tables = Tables.of(rows, levels=[3, 3])
    evidence = DagPosterior(2, BDeu(), discrete=True).log_marginal(tables)
    assert evidence.exp().tolist() == pytest.approx([1 / 9] * 9)
    assert tables[4:6].cardinalities().tolist() == [[3, 3]] * 2


def test_bic_where_a_variable_is_always_set_by_hand():
    hand = torch.zeros(12, 3, dtype=torch.bool)
    hand[:, 0] = True
    values = numbers()
    table = BIC().table(Tables.of([values], [hand]))[0]
    assert table[0].isfinite().any() and not table.isnan().any()
    alone = BIC().table(Tables.of([values]))[0]
    assert torch.equal(table[1:], alone[1:])


def test_bic_does_not_depend_on_units():
    values = numbers(40)
    found = [BIC().table(Tables.of([values * unit]))[0] for unit in (1.0, 1e-5)]
    gains = [table[1] - table[1, 0] for table in found]  # over no parents
    assert gains[0].tolist() == pytest.approx(gains[1].tolist(), abs=1e-6)
