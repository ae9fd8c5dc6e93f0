from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contentv.data.permutation import Permutation


@settings(deadline=None)
@given(size=st.integers(1, 500), seed=st.integers(0, 2**63 - 1))
def test_every_number_comes_once(size: int, seed: int) -> None:
    order = Permutation(size, seed)
    assert sorted(map(order, range(size))) == list(range(size))


def test_a_size_that_is_no_power_of_two_comes_whole() -> None:
    order = Permutation(10_007, 1)
    assert sorted(map(order, range(10_007))) == list(range(10_007))


def test_forty_million_need_no_more_memory_than_four() -> None:
    order = Permutation(40_000_000, 7)
    some = [order(place) for place in range(0, 40_000_000, 4001)]
    assert len(set(some)) == len(some)
    # Uniform: the mean of n draws from 0..1 is within 4 standard errors of a half.
    assert abs(np.mean(some) / 40e6 - 0.5) < 4 * (1 / 12 / len(some)) ** 0.5


def test_small_sizes_reach_every_order() -> None:
    seen = Counter(tuple(map(Permutation(4, seed), range(4))) for seed in range(2400))
    assert set(seen) == set(permutations(range(4)))
    assert max(seen.values()) < 2 * 100
    assert min(seen.values()) > 100 / 2


def test_neighbours_are_torn_apart() -> None:
    order = list(map(Permutation(4096, 3), range(4096)))
    assert abs(np.corrcoef(order, range(4096))[0, 1]) < 0.06
    assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.06


def test_seeds_give_orders_of_their_own() -> None:
    one, other = (list(map(Permutation(1000, seed), range(1000))) for seed in (1, 2))
    assert sum(a == b for a, b in zip(one, other, strict=True)) < 15


def test_the_order_is_the_same_on_every_machine_and_in_every_version() -> None:
    """A change of these numbers is a change of every run in the world: raise the plan's version."""
    assert list(map(Permutation(10, 0), range(10))) == GOLDEN


@pytest.mark.parametrize("place", [-1, 5])
def test_outside_is_an_error(place: int) -> None:
    with pytest.raises(IndexError, match=r"not in 0\.\.4"):
        Permutation(5, 0)(place)
    with pytest.raises(ValueError, match="must be 1 or more"):
        Permutation(0, 0)


GOLDEN = [4, 8, 5, 9, 3, 6, 0, 1, 2, 7]
