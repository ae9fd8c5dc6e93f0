from collections.abc import Iterable
from dataclasses import replace

import pytest

from contentv.data.buckets import BucketConfig, Buckets, Fit
from contentv.data.manifest import Clip
from contentv.encoding import views as module
from contentv.encoding.views import View, list_views, share_out, view_key

BUCKETS = Buckets(BucketConfig(areas=(64 * 64,), frames=(1, 5), fps=8))


def clip(number: int = 0, frames: int = 17) -> Clip:
    name = f"{number}.mp4"
    return Clip(name, name, "video", "x", frames=frames, fps=8.0, height=64, width=64, stamp="1")


def picture(number: int) -> Clip:
    return replace(clip(number, 1), path=f"{number}.png", kind="picture", fps=0.0)


def fit(clip: Clip) -> Fit:
    found = BUCKETS.fit(clip.size)
    assert isinstance(found, Fit), found
    return found


def views(*clips: Clip, windows: int = 1) -> list[View]:
    return list_views([(clip, fit(clip)) for clip in clips], windows, "encoder")


def test_whatever_decides_the_latents_names_them() -> None:
    usual, place = clip(), fit(clip())
    names = [
        view_key("encoder", usual, place, 0.0),
        view_key("another", usual, place, 0.0),
        view_key("encoder", usual, place, 1.0),
        view_key("encoder", replace(usual, stamp="2"), place, 0.0),
        view_key("encoder", replace(usual, path="b.mp4"), place, 0.0),
        view_key("encoder", replace(usual, start=3), place, 0.0),
        view_key("encoder", usual, replace(place, height=72, width=72), 0.0),
    ]
    assert len(set(names)) == len(names)
    same = replace(usual, id="b", short="y", long="z", source="elsewhere")
    assert view_key("encoder", same, place, 0.0) == names[0]


def test_a_clip_is_seen_at_the_frames_of_each_window_and_equal_views_are_one() -> None:
    longer = views(clip(frames=17), windows=3)
    assert [view.fit.times(view.start)[0] for view in longer] == [2, 6, 10]
    assert len(views(clip(frames=5), windows=3)) == 1
    assert len(views(picture(1), windows=3)) == 1
    assert len(views(clip(), clip())) == 1


def test_a_group_has_one_bucket_and_holds_what_a_shard_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VIEWS", 3)
    mixed = views(*(kind(n) for n in range(7) for kind in (clip, picture)))
    groups = list(share_out(mixed))
    assert sorted(len(group) for group in groups) == [1, 1, 3, 3, 3, 3]
    assert all(len({view.fit.bucket for view in group}) == 1 for group in groups)
    assert {view.key for group in groups for view in group} == {view.key for view in mixed}
    monkeypatch.setattr(module, "_MOST_PIXELS", 2 * 5 * 64 * 64)
    assert max(len(g) for g in share_out(mixed) if g[0].fit.bucket.frames == 5) == 2


def names(groups: Iterable[list[View]]) -> set[tuple[str, ...]]:
    return {tuple(view.key for view in group) for group in groups}


def test_the_rest_is_shared_out_as_before_whichever_groups_are_finished(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MOST_VIEWS", 3)
    mixed = views(*(kind(n) for n in range(7) for kind in (clip, picture)))
    groups = list(share_out(mixed))
    for number in range(2 ** len(groups)):
        left = [group for place, group in enumerate(groups) if number >> place & 1]
        keys = {view.key for group in left for view in group}
        assert names(share_out(view for view in mixed if view.key in keys)) == names(left)
