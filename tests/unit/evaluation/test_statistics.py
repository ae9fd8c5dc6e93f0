from math import comb, sqrt

import numpy as np
import pytest

from contentv.evaluation.statistics import Pairs, mcnemar, mean_interval, newcombe, wilson

# Examples of R. G. Newcombe, Statistics in Medicine 17, 1998, pp. 857-872, method 3.
PUBLISHED_SHARES = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
]
Z = 1.959963984540054


@pytest.mark.parametrize(("right", "total", "low", "high"), PUBLISHED_SHARES)
def test_wilson_gives_published_limits(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("right", "total"), [(1, 10), (37, 50), (499, 500)])
def test_wilson_limits_solve_the_score_equation(right: int, total: int) -> None:
    for limit in wilson(right, total):
        deviation = sqrt(limit * (1 - limit) / total)
        assert abs(right / total - limit) == pytest.approx(Z * deviation, rel=1e-9)


def test_wilson_is_symmetric_and_stays_inside() -> None:
    low, high = wilson(3, 17)
    assert wilson(14, 17) == pytest.approx((1 - high, 1 - low))
    assert wilson(0, 5).low == 0
    assert wilson(5, 5).high == 1


def test_mcnemar_of_a_published_table() -> None:
    """Two media for tubercle bacilli: Armitage & Berry, Statistical Methods, 1994, p. 127."""
    assert mcnemar(Pairs(20, 12, 2, 16)) == pytest.approx(0.0129, abs=5e-5)


def test_mcnemar_is_a_coin_thrown_for_each_decided_prompt() -> None:
    assert mcnemar(Pairs(90, 0, 5, 5)) == 2 / 2**5
    assert mcnemar(Pairs(1, 7, 7, 1)) == 1
    assert mcnemar(Pairs(10, 0, 0, 10)) == 1
    assert mcnemar(Pairs(3, 2, 8, 3)) == mcnemar(Pairs(50, 8, 2, 0))
    assert mcnemar(Pairs(0, 1, 9, 0)) == pytest.approx(2 * (1 + comb(10, 1)) / 2**10)


def test_newcombe_of_a_published_table() -> None:
    """Airways before and after a transplantation: Fagerland et al., Stat. Med. 33, 2014."""
    assert newcombe(Pairs(1, 1, 7, 12)) == pytest.approx((-0.507, -0.026), abs=5e-4)


def test_newcombe_of_unrelated_models_adds_squares() -> None:
    low_1, high_1 = wilson(60, 100)
    low_2, high_2 = wilson(50, 100)
    low, high = newcombe(Pairs(30, 30, 20, 20))
    assert low == pytest.approx(0.1 - sqrt((0.6 - low_1) ** 2 + (high_2 - 0.5) ** 2))
    assert high == pytest.approx(0.1 + sqrt((high_1 - 0.6) ** 2 + (0.5 - low_2) ** 2))


def test_newcombe_is_narrower_where_models_agree() -> None:
    agree, differ = newcombe(Pairs(55, 10, 5, 30)), newcombe(Pairs(39, 26, 21, 14))
    assert agree.high - agree.low < 0.7 * (differ.high - differ.low)


def test_newcombe_changes_sign_with_the_order_of_the_models() -> None:
    low, high = newcombe(Pairs(30, 12, 5, 9))
    assert newcombe(Pairs(30, 5, 12, 9)) == pytest.approx((-high, -low))
    assert low < 7 / 56 < high


def test_newcombe_of_models_that_are_always_right() -> None:
    low, high = newcombe(Pairs(40, 0, 0, 0))
    assert low == pytest.approx(-high)
    assert 0 < high < 0.15


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    truth = np.array([0.70, 0.16, 0.08, 0.06])
    tables = rng.multinomial(120, truth, size=1500)
    covered = [low <= 0.08 <= high for low, high in (newcombe(Pairs(*t)) for t in tables.tolist())]
    assert 0.935 <= np.mean(covered) <= 0.98
    rights = rng.binomial(120, 0.86, size=1500).tolist()
    covered = [low <= 0.86 <= high for low, high in (wilson(right, 120) for right in rights)]
    assert 0.925 <= np.mean(covered) <= 0.98


def test_mean_interval() -> None:
    low, high = mean_interval([29.0, 31.0, 30.0, 30.0])
    assert (low + high) / 2 == pytest.approx(30)
    assert high - low == pytest.approx(2 * Z * sqrt(2 / 3) / 2)
    assert mean_interval([30.0]) == (30, 30)
