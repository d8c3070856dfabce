"""The order of the rows in the paper's own Table 2, and how far another table has the same."""

from collections.abc import Mapping, Sequence
from itertools import combinations

COLUMNS = ("miniImageNet 1-shot", "miniImageNet 5-shot", "tieredImageNet 1-shot", "tieredImageNet 5-shot")

TABLE_2: Mapping[str, Sequence[float]] = {
    "meta-sgd": (54.24, 70.86, 62.95, 79.34),
    "generator-only": (60.33, 74.53, 65.17, 78.77),
    "generator-finetuning": (60.62, 76.42, 65.74, 80.65),
    "random-prior": (61.01, 77.27, 65.39, 80.83),
    "deterministic": (61.48, 76.53, 66.18, 82.06),
    "no-finetuning": (61.62, 77.46, 66.14, 80.89),
    "leo": (61.76, 77.59, 66.33, 81.44),
}
"""Rusu et al. 2019, Table 2: test accuracy in percent by row, in the order of :data:`COLUMNS`. Other data and other
features than anybody else's: only their order is of use here."""


def ranks(values: Mapping[str, float]) -> dict[str, int]:
    """1 for the largest; equals share the better rank."""
    return {name: 1 + sum(other > value for other in values.values()) for name, value in values.items()}


def order(values: Mapping[str, float]) -> tuple[dict[str, tuple[int, ...]], tuple[tuple[int, int], ...]]:
    """The ranks of rows here and in the paper's columns, among the rows that are there.

    Args:
        values: the score of each row by its slug, larger is better.

    Returns:
        By slug, the rank here and then those of the columns; and for each column, how many pairs of rows are in the
        same order as here, of how many.
    """
    columns = [{slug: TABLE_2[slug][i] for slug in values} for i in range(len(COLUMNS))]
    ranked = [ranks(one) for one in (values, *columns)]
    pairs = tuple(_agreement(values, column) for column in columns)
    return {slug: tuple(one[slug] for one in ranked) for slug in values}, pairs


def _agreement(a: Mapping[str, float], b: Mapping[str, float]) -> tuple[int, int]:
    same = [(a[i] - a[j]) * (b[i] - b[j]) > 0 for i, j in combinations(a, 2)]
    return sum(same), len(same)
