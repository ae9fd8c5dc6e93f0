import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contentv.base.errors import UserError
from contentv.data.batching import batch_sizes, corrections, tokens, transformer_cost
from contentv.data.buckets import DURATIONS, Bucket, BucketConfig, Buckets

VIDEOS = Buckets(BucketConfig(frames=DURATIONS)).shapes
COST = transformer_cost(2432)
DEAREST = max(map(COST, VIDEOS))


def plenty(_: Bucket) -> int:
    return 10_000


def totals(sizes: dict[Bucket, int]) -> np.ndarray:
    return np.array([size * COST(shape) for shape, size in sizes.items()])


def test_tokens_of_the_papers_shapes() -> None:
    assert tokens(Bucket(125, 432, 768)) == 41_472
    assert tokens(Bucket(125, 720, 1280)) == 115_200
    assert tokens(Bucket(1, 432, 768)) == 1_296


def test_cost_is_the_flops_formula() -> None:
    assert transformer_cost(2)(Bucket(1, 16, 32)) == 24 * 4 * 2 + 4 * 2 * 2**2
    assert transformer_cost(2, 3)(Bucket(1, 16, 32)) == 24 * 4 * 2 + 4 * 2 * 5**2


@settings(deadline=None)
@given(
    budget=st.floats(1, 40),
    most=st.integers(1, 100),
    factors=st.lists(st.floats(0.5, 1.0), min_size=len(VIDEOS), max_size=len(VIDEOS)),
)
def test_no_batch_is_over_budget_or_memory_or_empty(
    budget: float, most: int, factors: list[float]
) -> None:
    correction = dict(zip(VIDEOS, factors, strict=True))
    limit = budget * DEAREST
    sizes = batch_sizes(VIDEOS, COST, budget=limit, most=lambda _: most, correction=correction)
    assert list(sizes) == list(VIDEOS)
    for shape, size in sizes.items():
        assert 1 <= size <= most
        assert size * COST(shape) * correction[shape] <= limit * (1 + 1e-9)


def test_costs_are_alike_and_near_the_budget() -> None:
    costs = totals(batch_sizes(VIDEOS, COST, budget=5 * DEAREST, most=plenty))
    assert costs.mean() / costs.max() > 0.97
    assert costs.max() > 2.5 * DEAREST
    one_each = totals(dict.fromkeys(VIDEOS, 1))
    assert one_each.mean() / one_each.max() < 0.6


def test_a_bucket_measured_slower_gets_fewer_clips() -> None:
    slow = VIDEOS[0]
    before = batch_sizes(VIDEOS, COST, budget=5 * DEAREST, most=plenty)
    after = batch_sizes(VIDEOS, COST, budget=5 * DEAREST, most=plenty, correction={slow: 2.0})
    assert after[slow] < 0.6 * before[slow]


def test_corrections_undo_what_was_measured_wrong() -> None:
    true = {shape: 3e-12 * COST(shape) * (1 + index) for index, shape in enumerate(VIDEOS)}
    factors = corrections(true, COST)
    assert np.prod(list(factors.values())) == pytest.approx(1)
    ratio = [true[shape] / (COST(shape) * factors[shape]) for shape in VIDEOS]
    assert np.allclose(ratio, ratio[0])
    assert corrections({}, COST) == {}
    with pytest.raises(UserError, match="above 0"):
        corrections({VIDEOS[0]: 0.0}, COST)


def test_what_cannot_be_batched_is_said() -> None:
    with pytest.raises(UserError, match=r"one clip of \d+x\d+x\d+ costs .*raise the budget"):
        batch_sizes(VIDEOS, COST, budget=DEAREST / 2, most=plenty)
    with pytest.raises(UserError, match=r"125x432x768: one clip does not fit into memory"):
        batch_sizes(VIDEOS, COST, budget=DEAREST, most=lambda b: int(b != Bucket(125, 432, 768)))
    with pytest.raises(UserError, match="no buckets"):
        batch_sizes((), COST, budget=1.0, most=plenty)
    with pytest.raises(UserError, match="must be above 0"):
        batch_sizes(VIDEOS, lambda _: float("nan"), budget=1.0, most=plenty)
