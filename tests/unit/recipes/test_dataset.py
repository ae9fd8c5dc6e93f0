from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from contentv.base.errors import UserError
from contentv.data.batching import tokens
from contentv.data.buckets import Bucket, BucketConfig, Buckets
from contentv.data.entries import Listing
from contentv.data.manifest import Clip
from contentv.recipes.dataset import PlannedData, as_they_come, clips_hash, plan_data, sizes_at_most

BUCKETS = Buckets(BucketConfig(areas=(64 * 64,), frames=(1, 5, 17), fps=8))


def clip(number: int, frames: int) -> Clip:
    size = {"frames": frames, "fps": 8.0 if frames > 1 else 0.0, "height": 64, "width": 64}
    kind = "video" if frames > 1 else "picture"
    return Clip(str(number), f"{number}.mp4", kind, "text", **size, stamp="1")  # type: ignore[arg-type]


CLIPS = [clip(n, frames) for n, frames in enumerate([1] * 6 + [5] * 7 + [17] * 5 + [3])]


def cost(bucket: Bucket) -> float:
    return float(tokens(bucket)) ** 2


def planned(clips: list[Clip], *, batch_size: int = 2) -> PlannedData:
    listing = Listing("sidecars", Path("films"), clips)
    return plan_data(
        listing,
        BUCKETS,
        cost,
        seed=0,
        stage="stage",
        sizes=sizes_at_most(cost, batch_size),
        mix=as_they_come,
        batches_per_step=3,
    )


def test_over_time_every_usable_clip_comes_equally_often() -> None:
    plan = planned(CLIPS).plan
    seen = Counter(row for step in range(600) for b in plan(step).batches for row in b.rows)
    assert seen.keys() == set(range(18))  # the last is too short
    mean = seen.total() / len(seen)
    assert all(abs(count - mean) < 0.1 * mean for count in seen.values())


def test_a_batch_costs_no_more_and_is_no_larger_than_that_of_the_dearest_bucket() -> None:
    shelves = {shelf.bucket: shelf for shelf in planned(CLIPS).plan.shelves}
    dearest = shelves[Bucket(17, 64, 64)]
    assert dearest.batch == 2
    assert shelves[Bucket(1, 64, 64)].batch > 2
    for bucket, shelf in shelves.items():
        assert shelf.batch * tokens(bucket) <= dearest.batch * tokens(dearest.bucket)
        assert shelf.batch * shelf.cost <= dearest.batch * dearest.cost


def test_buckets_without_clips_leave_batches_alone() -> None:
    shelves = planned(CLIPS[6:13]).plan.shelves
    assert [(shelf.bucket.frames, shelf.batch) for shelf in shelves] == [(5, 2)]


def test_a_copy_of_the_data_is_the_same_data() -> None:
    copied = [replace(clip, stamp="2", source="elsewhere") for clip in CLIPS]
    assert clips_hash(copied) == clips_hash(CLIPS)
    assert planned(copied).plan.hash == planned(CLIPS).plan.hash
    assert clips_hash(CLIPS[1:]) != clips_hash(CLIPS)
    assert clips_hash([replace(CLIPS[0], short="other"), *CLIPS[1:]]) != clips_hash(CLIPS)


def test_nothing_usable_is_said_with_counts_and_an_example() -> None:
    torn = replace(CLIPS[0], fault="is damaged")
    with pytest.raises(UserError) as caught:
        planned([CLIPS[-1], torn, CLIPS[-1]])
    assert str(caught.value) == (
        "films: none of its 3 clips can be used (too_short: 2, faulty: 1), such as 18: 3 frames at "
        "8 fps; the shortest bucket has 5; `contentv data check` tells of each"
    )
