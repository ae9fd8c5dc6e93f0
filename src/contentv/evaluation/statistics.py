"""Shares with their uncertainty, and the difference of two models on the same prompts."""

from math import comb, sqrt
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

Z_95 = NormalDist().inv_cdf(0.975)


class Interval(NamedTuple):
    """Limits of a 95 % interval."""

    low: float
    high: float


class Pairs(NamedTuple):
    """On how many prompts both models were right, one alone, or neither."""

    both: int
    first_only: int
    second_only: int
    neither: int


def wilson(right: int, total: int) -> Interval:
    """Interval of a share of `total` > 0 trials by Wilson's score; never outside 0..1."""
    share, z = right / total, Z_95 * Z_95 / total
    middle = (share + z / 2) / (1 + z)
    half = sqrt(share * (1 - share) * z + z * z / 4) / (1 + z)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def mean_interval(values: list[float]) -> Interval:
    """Interval of a mean by the normal law; one value alone has no width to tell."""
    middle = fmean(values)
    half = Z_95 * stdev(values) / sqrt(len(values)) if len(values) > 1 else 0.0
    return Interval(middle - half, middle + half)


def mcnemar(pairs: Pairs) -> float:
    """Two-sided exact p-value: how often a fair coin splits the decided prompts at least so far."""
    decided = pairs.first_only + pairs.second_only
    tail = sum(comb(decided, k) for k in range(min(pairs.first_only, pairs.second_only) + 1))
    return min(1.0, 2 * tail / 2**decided)


def newcombe(pairs: Pairs) -> Interval:
    """Interval of the first share minus the second.

    Wilson's intervals of both, combined with their correlation, which is corrected towards zero
    (R. G. Newcombe, Statistics in Medicine 17, 1998, pp. 2635-2650, method 10).
    """
    total = sum(pairs)
    right_1, right_2 = pairs.both + pairs.first_only, pairs.both + pairs.second_only
    first, second = right_1 / total, right_2 / total
    low_1, high_1 = wilson(right_1, total)
    low_2, high_2 = wilson(right_2, total)
    phi = _correlation(pairs)
    difference = first - second
    below = _combine(first - low_1, high_2 - second, phi)
    above = _combine(high_1 - first, second - low_2, phi)
    return Interval(max(-1.0, difference - below), min(1.0, difference + above))


def _correlation(pairs: Pairs) -> float:
    a, b, c, d = pairs
    product = (a + b) * (c + d) * (a + c) * (b + d)
    if not product:
        return 0.0
    surplus = float(a * d - b * c)
    if surplus > 0:
        surplus = max(0.0, surplus - sum(pairs) / 2)
    return surplus / sqrt(product)


def _combine(one: float, other: float, phi: float) -> float:
    return sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))
