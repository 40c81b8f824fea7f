"""Whether samples fit a distribution."""

from __future__ import annotations

from collections import Counter


def chi_square(drawn: Counter, probabilities: dict) -> tuple[float, float]:
    """Pearson's statistic of independent draws, and its upper 1e-4 quantile.

    Cells expected fewer than 5 times are put together. The quantile is Wilson and Hilferty's.
    """
    count = sum(drawn.values())
    assert drawn.keys() <= probabilities.keys()
    cells, rest = [], [0.0, 0.0]
    for key, p in probabilities.items():
        if p * count >= 5:
            cells.append((drawn[key], p * count))
        else:
            rest = [rest[0] + drawn[key], rest[1] + p * count]
    if rest[1] > 0:
        cells.append(tuple(rest) if rest[1] >= 1 else (0.0, 1.0))
    freedom = len(cells) - 1
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    share = 2 / (9 * freedom)
    return statistic, freedom * (1 - share + 3.719 * share**0.5) ** 3
