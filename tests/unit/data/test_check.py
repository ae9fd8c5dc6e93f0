import json
from dataclasses import replace
from pathlib import Path

import pytest

from contentv.data.buckets import Bucket, BucketConfig, Buckets
from contentv.data.check import Check, judge
from contentv.data.entries import Listing
from contentv.data.manifest import Clip
from contentv.data.plan import MixPhase, Plan
from contentv.data.shelves import shelve

BUCKETS = Buckets(BucketConfig(areas=(64 * 64,), frames=(1, 17, 33), fps=8, max_crop=0.3))
SIZES = dict.fromkeys(BUCKETS.shapes, 4)
GOOD = Clip("a", "a.mp4", "video", "a cat", frames=20, fps=8.0, height=64, width=64)
PICTURE = Clip("p", "p.png", "picture", "a dog", frames=1, height=80, width=80)


def many(clip: Clip, count: int) -> list[Clip]:
    return [
        replace(clip, id=f"{clip.id}{i}", short=f"{clip.short} {i}" if clip.short else "")
        for i in range(count)
    ]


def check(clips: list[Clip], notes: tuple[str, ...] = ()) -> Check:
    listing = Listing("table", Path("data"), clips, notes)
    return Check(listing, [judge(clip, BUCKETS) for clip in clips], SIZES)


def test_a_used_clip_says_what_becomes_of_it() -> None:
    row = judge(replace(GOOD, height=70, width=80, frames=21), BUCKETS).row()
    assert json.loads(json.dumps(row)) == row
    assert row == {
        "id": "a",
        "path": "a.mp4",
        "kind": "video",
        "used": True,
        "bucket": "17x64x64",
        "ratio": "1:1",
        "size": "70x80",
        "resized": "64x73",
        "cropped": round(1 - 64 / 73, 4),
        "frames": 21,
        "fps": 8.0,
        "frames_at_training_fps": 21,
        "frames_used": 17,
        "truncated": 4,
    }
    wide = replace(GOOD, height=70, width=80)
    assert str(judge(wide, BUCKETS)) == "a: 17x64x64, 12% cropped, 17 of 20 frames"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"fault": "is cut short"}, "faulty"),
        ({"short": ""}, "no_caption"),
        ({"frames": 16}, "too_short"),
        ({"fps": 4.0}, "too_slow"),
        ({"width": 40, "height": 40}, "too_small"),
        ({"width": 400}, "too_narrow"),
    ],
)
def test_a_dropped_clip_says_why(change: dict[str, object], reason: str) -> None:
    verdict = judge(replace(GOOD, **change), BUCKETS)  # type: ignore[arg-type]
    row = verdict.row()
    assert (row["used"], row["reason"]) == (False, reason)
    assert row["detail"]
    assert str(verdict).startswith(f"a: dropped, {reason}: ")


def test_every_clip_is_counted_once() -> None:
    short = replace(GOOD, id="s", frames=5)
    found = check([*many(GOOD, 10), *many(PICTURE, 3), *many(short, 2)])
    summary = found.summary()
    assert (summary["clips"], summary["used"], summary["dropped"]) == (15, 13, {"too_short": 2})
    assert found.clips_of == {Bucket(1, 64, 64): 3, Bucket(17, 64, 64): 10}
    assert summary["batches_per_epoch"] == 1 + 3
    assert json.loads(json.dumps(summary)) == summary


def test_the_plan_trains_on_exactly_the_clips_that_are_said_to_be_used() -> None:
    clips = [*many(GOOD, 9), *many(replace(GOOD, frames=40), 6), *many(replace(GOOD, frames=3), 4)]
    clips += [replace(GOOD, id="f", fault="broken"), replace(GOOD, id="c", short="")]
    found = check(clips)
    shelves = shelve(clips, BUCKETS, SIZES, cost=lambda _: 1.0)
    assert {shelf.bucket: len(shelf.rows) for shelf in shelves} == found.clips_of
    plan = Plan(0, "stage1", shelves, (MixPhase(steps=5),), 1, "x")
    seen = [clips[row].id for step in range(5) for row in plan(step).batches[0].rows]
    assert sorted(seen) == sorted(verdict.clip.id for verdict in found.used)


def test_a_healthy_data_set_has_no_warnings() -> None:
    assert check(many(GOOD, 50)).warnings == []


@pytest.mark.parametrize(
    ("clips", "words"),
    [
        ([replace(GOOD, fault="x")], "no clip can be used"),
        ([*many(GOOD, 9), *many(replace(GOOD, id="s", frames=5), 1)], "1 of 10 clips are dropped"),
        (many(GOOD, 3), "17x64x64 has 3 clips and a batch of 4: it never fills a batch"),
        ([*many(GOOD, 900), *many(PICTURE, 4)], "1x64x64 has 4 of 904 clips: it is seldom seen"),
        (many(replace(GOOD, width=140), 9), "lose more than 20% of the picture"),
        (many(replace(GOOD, frames=400), 9), "92% of all frames lie past"),
        ([GOOD] * 9, "9 of 9 clips have the same caption: 'a cat'"),
        ([*many(GOOD, 900), *many(PICTURE, 9), *many(replace(GOOD, width=48, height=64), 9)],
         "17x64x64 has more than 20 times the clips"),
    ],
)  # fmt: skip
def test_what_is_odd_is_said(clips: list[Clip], words: str) -> None:
    warnings = check(clips).warnings
    assert any(words in warning for warning in warnings), warnings


def test_what_the_layout_saw_is_passed_on() -> None:
    assert check(many(GOOD, 9), ("2 .txt files lie about",)).warnings == ["2 .txt files lie about"]
