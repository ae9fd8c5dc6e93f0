import pytest
from hypothesis import given
from hypothesis import strategies as st

from contentv.curation.scoring.instants import inside, spread
from contentv.curation.step import Span
from contentv.data.manifest import Kind

seconds = st.integers(0, 400).map(lambda value: value / 8)


def span(start: float, end: float, kind: Kind = "video") -> Span:
    return Span("a", kind, 0, start, end, 0, 1)


@given(st.sets(seconds, max_size=30), seconds, seconds, st.booleans())
def test_inside_is_what_the_span_holds(
    times: set[float], start: float, length: float, picture: bool
) -> None:
    ascending = sorted(times)
    clip = span(start, start, "picture") if picture else span(start, start + length)
    held = [time for time in ascending if clip.holds(time)]
    assert [ascending[index] for index in inside(ascending, clip)] == held


@given(st.sets(seconds, min_size=1, max_size=30), seconds, seconds, st.integers(1, 8))
def test_the_chosen_are_of_the_clip_in_order_and_evenly_spread(
    times: set[float], start: float, length: float, count: int
) -> None:
    ascending, clip = sorted(times), span(start, start + length)
    chosen = spread(ascending, clip, count)
    seen = inside(ascending, clip)
    assert len(chosen) == (count if seen else 0)
    assert chosen == sorted(chosen)
    assert set(chosen) <= set(seen)


@pytest.mark.parametrize(
    ("end", "chosen"), [(4.0, [0, 1, 2, 3]), (6.0, [0, 2, 3, 5]), (3.0, [0, 1, 1, 2])]
)
def test_one_sample_a_second_gives_four(end: float, chosen: list[int]) -> None:
    times = [number + 0.5 for number in range(10)]
    assert spread(times, span(0.0, end), 4) == chosen


def test_a_picture_is_chosen_again_and_again() -> None:
    assert spread([0.5, 1.5, 2.5], span(1.5, 1.5, "picture"), 4) == [1, 1, 1, 1]
    assert spread([0.5, 1.5, 2.5], span(1.0, 1.0, "picture"), 4) == []
