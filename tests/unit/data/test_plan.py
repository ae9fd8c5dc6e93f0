from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from contentv.base.errors import UserError
from contentv.data.batching import tokens
from contentv.data.buckets import Bucket
from contentv.data.plan import MixPhase, Plan, StepPlan, Weighting, draw
from contentv.data.shelves import Shelf

PICTURE, WIDE, LONG = Bucket(1, 64, 64), Bucket(17, 48, 80), Bucket(33, 64, 64)


def shelves(pictures: int = 50, wide: int = 23, long: int = 11) -> tuple[Shelf, ...]:
    """Rows tell their shelf: pictures from 0, wide from 1000, long from 2000."""
    numbers = [
        (PICTURE, 0, pictures, 5, 1.0),
        (WIDE, 1000, wide, 3, 2.0),
        (LONG, 2000, long, 2, 3.1),
    ]
    return tuple(
        Shelf(bucket, np.arange(first, first + count), batch, cost)
        for bucket, first, count, batch, cost in numbers
        if count
    )  # fmt: skip


def plan(
    *phases: MixPhase,
    seed: int = 0,
    stage: str = "stage1",
    batches_per_step: int = 4,
    weighting: Weighting = "sample",
    on: tuple[Shelf, ...] | None = None,
) -> Plan:
    phases = phases or (MixPhase(steps=200),)
    on = shelves() if on is None else on
    return Plan(seed, stage, on, phases, batches_per_step, "manifest", weighting)


def rows(steps: list[StepPlan]) -> list[int]:
    return [row for step in steps for batch in step.batches for row in batch.rows]


def test_a_step_is_a_function_of_its_number_alone() -> None:
    forwards = plan()
    first = [forwards(step) for step in range(20)]
    backwards = plan()
    assert [backwards(step) for step in reversed(range(20))] == first[::-1]


@pytest.mark.parametrize("change", [{"seed": 1}, {"stage": "stage2"}])
def test_seed_and_stage_change_the_order(change: dict[str, object]) -> None:
    one, other = plan(), plan(**change)  # type: ignore[arg-type]
    assert rows([one(step) for step in range(5)]) != rows([other(step) for step in range(5)])
    assert one.hash != other.hash


def test_an_epoch_has_every_clip_once() -> None:
    """23 clips in threes and 11 in twos: 8 + 6 micro-batches, and none is left out."""
    whole = plan(MixPhase(steps=70), batches_per_step=1)
    for epoch in range(5):
        seen = Counter(rows([whole(14 * epoch + step) for step in range(14)]))
        assert seen == Counter([*range(1000, 1023), *range(2000, 2011)])
    orders = {tuple(rows([whole(14 * e + step) for step in range(14)])) for e in range(5)}
    assert len(orders) == 5


@settings(max_examples=30, deadline=None)
@given(
    wide=st.integers(0, 40),
    long=st.integers(1, 40),
    per_step=st.integers(1, 9),
    seed=st.integers(0),
)
def test_passes_over_the_data_end_where_they_should(
    wide: int, long: int, per_step: int, seed: int
) -> None:
    """Whatever the step's size: after k whole epochs every clip was seen k times or is about to."""
    on = shelves(0, wide, long)
    steps = 12
    it = plan(MixPhase(steps=steps), seed=seed, batches_per_step=per_step, on=on)
    seen = Counter(rows([it(step) for step in range(steps)]))
    epochs = steps * per_step // sum(shelf.num_batches for shelf in on)
    every = [int(row) for shelf in on for row in shelf.rows]
    assert all(epochs <= seen[row] <= epochs + 1 for row in every)
    assert set(seen) <= set(every)


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 6, 12])
def test_the_number_of_groups_changes_neither_clips_nor_slots(groups: int) -> None:
    it = plan(MixPhase(steps=30, pictures=1), batches_per_step=12)
    for step in range(30):
        whole = it(step)
        hands = [whole.deal(group, groups) for group in range(groups)]
        assert {len(hand) for hand in hands} == {12 // groups}
        dealt = sorted((batch for hand in hands for batch in hand), key=lambda b: b.slots)
        assert dealt == list(whole.batches)


def test_slots_number_the_samples_of_a_step() -> None:
    whole = plan(batches_per_step=7)(3)
    slots = [slot for batch in whole.batches for slot in batch.slots]
    assert slots == list(range(whole.num_samples))


def test_groups_compute_alike_batches_at_the_same_time() -> None:
    whole = plan(MixPhase(steps=5, pictures=1), batches_per_step=24)(2)
    hands = [whole.deal(group, 4) for group in range(4)]
    rounds = [[hand[number].cost for hand in hands] for number in range(6)]
    assert all(min(one) >= max(later) for one, later in pairwise(rounds))
    sums = [sum(batch.cost for batch in hand) for hand in hands]
    assert max(sums) - min(sums) <= max(batch.cost for batch in whole.batches)


def test_a_number_of_groups_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match=r"groups=5: must divide the 4 micro-batches.*use 1, 2, 4"):
        plan()(0).deal(0, 5)
    with pytest.raises(UserError, match="groups=0"):
        plan()(0).deal(0, 0)


@pytest.mark.parametrize("weighting", ["sample", "token"])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_unequal_batches_weigh_as_one_large_batch(weighting: Weighting, groups: int) -> None:
    """Trap 1a: local sums over a count that all know, not a mean of means."""
    whole = plan(MixPhase(steps=9, pictures=1), batches_per_step=6, weighting=weighting)(4)
    loss = {row: (row * 37 % 101) / 7 for row in rows([whole])}
    counted = [(row, batch) for batch in whole.batches for row in batch.rows]
    assert len({len(batch.rows) for batch in whole.batches}) > 1
    units = [tokens(batch.bucket) if weighting == "token" else 1 for _, batch in counted]
    true = float(np.average([loss[row] for row, _ in counted], weights=units))
    parts = [
        sum(batch.weight * loss[row] for batch in whole.deal(g, groups) for row in batch.rows)
        for g in range(groups)
    ]
    assert sum(parts) == pytest.approx(true, rel=1e-12)
    means = [np.mean([loss[r] for b in whole.deal(g, 6) for r in b.rows]) for g in range(6)]
    assert np.mean(means) != pytest.approx(true, rel=1e-3)


def test_video_only_then_joint_in_exact_proportion() -> None:
    """3 pictures for each 2 clips, counted over whole epochs of both pools."""
    alone, joint = MixPhase(steps=10), MixPhase(steps=1400, pictures=3, videos=2)
    it = plan(alone, joint, batches_per_step=1)
    before = rows([it(step) for step in range(10)])
    assert min(before) >= 1000
    # Epochs of 10 micro-batches of pictures and 14 of videos.
    share = Fraction(3 * 10, 50) / (Fraction(3 * 10, 50) + Fraction(2 * 14, 34))
    whole = share.denominator
    steps = [it(10 + step) for step in range(whole)]
    kinds = [step.batches[0].bucket == PICTURE for step in steps]
    assert sum(kinds) == share.numerator
    for length in range(1, whole):
        assert abs(sum(kinds[:length]) - share * length) < 1
    counts = Counter(row < 1000 for row in rows(steps))
    assert abs(counts[True] / counts[False] - 3 / 2) < 0.1


def test_full_batches_are_in_exact_proportion() -> None:
    on = shelves(pictures=50, wide=24, long=0)
    it = plan(MixPhase(steps=80, pictures=5, videos=3), batches_per_step=1, on=on)
    counts = Counter(row < 1000 for row in rows([it(step) for step in range(80)]))
    assert counts[True] * 3 == counts[False] * 5


def test_phases_go_on_where_the_one_before_stopped() -> None:
    cut = plan(MixPhase(steps=3), MixPhase(steps=4), batches_per_step=5)
    whole = plan(MixPhase(steps=7), batches_per_step=5)
    assert [cut(step) for step in range(7)] == [whole(step) for step in range(7)]
    mixed = plan(MixPhase(steps=4, pictures=1), MixPhase(steps=3), batches_per_step=7)
    videos = [row for row in rows([mixed(step) for step in range(7)]) if row >= 1000]
    assert max(Counter(videos).values()) - min(Counter(videos).values()) <= 1
    with pytest.raises(IndexError, match="step 7 is not one of the 7"):
        cut(7)
    with pytest.raises(IndexError, match="step -1"):
        cut(-1)


def test_what_is_asked_for_must_be_there() -> None:
    with pytest.raises(UserError, match="asks for videos and no usable clip is one"):
        plan(on=shelves(5, 0, 0))
    with pytest.raises(UserError, match="asks for pictures"):
        plan(MixPhase(steps=1, pictures=1), on=shelves(0, 5, 5))
    with pytest.raises(ValidationError, match="nothing to train on"):
        MixPhase(steps=1, pictures=0, videos=0)


def test_draws_are_keyed_by_step_and_slot() -> None:
    assert draw(0, "stage1", 5, 2) == draw(0, "stage1", 5, 2)
    keys = [(0, "stage1", 5, 2), (1, "stage1", 5, 2), (0, "sft", 5, 2), (0, "stage1", 6, 2)]
    assert len({draw(*one) for one in [*keys, (0, "stage1", 5, 3)]}) == 5
    values = np.array(
        [
            (d.start, d.down, d.right, d.caption, *d.dropped)
            for d in (draw(0, "x", 0, slot) for slot in range(2000))
        ]
    )
    assert np.allclose(values.mean(0), 0.5, atol=4 * (1 / 12 / 2000) ** 0.5)
    assert np.abs(np.corrcoef(values.T) - np.eye(7)).max() < 0.09
    assert values.min() >= 0
    assert values.max() < 1


def test_a_clip_that_cannot_be_read_has_the_same_stand_ins_everywhere() -> None:
    it = plan()
    tried = [it.replacement(WIDE, 1003, attempt) for attempt in range(1, 23)]
    assert tried == [plan().replacement(WIDE, 1003, attempt) for attempt in range(1, 23)]
    assert sorted([1003, *tried]) == list(range(1000, 1023))
    with pytest.raises(UserError, match="17x48x80: none of its 23 clips can be read"):
        it.replacement(WIDE, 1003, 23)


def test_the_hash_knows_all_that_a_batch_depends_on() -> None:
    base = plan()
    assert base.hash == plan().hash
    other = [
        plan(MixPhase(steps=201)),
        plan(MixPhase(steps=200, pictures=1)),
        plan(batches_per_step=2),
        plan(weighting="token"),
        plan(on=shelves(49)),
        plan(on=shelves()[::-1]),
        Plan(0, "stage1", shelves(), (MixPhase(steps=200),), 4, "another manifest"),
    ]
    assert len({base.hash, *(one.hash for one in other)}) == 8


def test_the_plan_is_the_same_in_every_version() -> None:
    """A change of these numbers changes runs that are under way: raise the plan's version."""
    it = plan(MixPhase(steps=2), MixPhase(steps=2, pictures=1), batches_per_step=3)
    assert (it.hash, [[b.rows for b in it(step).batches] for step in (0, 3)]) == GOLDEN


GOLDEN: tuple[str, list[list[tuple[int, ...]]]] = (
    "e244d560bcb570c6",
    [
        [(1018, 1007, 1016), (1000, 1004, 1001), (1002, 1009, 1011)],
        [(40, 17, 27, 15, 29), (1010, 1013, 1014), (2001, 2008)],
    ],
)
