from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from contentv.base.types import Frame
from contentv.curation.cutting.boundaries import Boundary, fades, hard_cuts, merged, peaks, runs
from contentv.curation.cutting.evidence import measure
from contentv.curation.settings import ShotSettings

CONFIG = ShotSettings()
spans = st.builds(
    lambda first, length, kind: Boundary(first, first + length, kind),
    st.integers(0, 300), st.integers(0, 20), st.sampled_from(["cut", "gap", "dissolve"]),
)  # fmt: skip


@given(st.lists(spans, max_size=20), st.integers(0, 4))
def test_merged_boundaries_are_apart_and_lose_no_frame(found: list[Boundary], near: int) -> None:
    result = merged(found, near)
    for one, other in pairwise(result):
        assert other.first >= one.stop + near
    for each in found:
        assert any(b.first <= each.first and each.stop <= b.stop for b in result)
        kinds = {b.kind for b in result if b.first <= each.first and each.stop <= b.stop}
        assert each.kind != "dissolve" or "dissolve" in kinds


@given(st.lists(st.booleans(), max_size=50))
def test_runs_are_the_flags_again(flags: list[bool]) -> None:
    again = np.zeros(len(flags), np.bool_)
    for first, stop in runs(np.array(flags, np.bool_)):
        assert first < stop
        again[first:stop] = True
    assert again.tolist() == flags


@given(st.lists(st.integers(0, 9), min_size=1, max_size=60), st.integers(1, 12))
def test_peaks_are_the_highest_near_them_and_apart(values: list[int], apart: int) -> None:
    found = peaks(np.array(values, np.float64), 3.0, apart)
    for place in found:
        assert values[place] == max(values[max(0, place - apart) : place + apart + 1]) >= 3
    assert all(b - a > apart for a, b in pairwise(found))


def noise(seed: int) -> Frame:
    return np.random.default_rng(seed).integers(0, 256, (27, 48, 3)).astype(np.uint8)


def faded(length: int, *, same: bool = False) -> Frame:
    one, other = noise(1), noise(1 if same else 2) // 2
    dips = np.abs(2 * np.arange(1, length + 1) / (length + 1) - 1)
    half = (length + 1) // 2
    middle = [(one if n < half else other) * dips[n] for n in range(length)]
    return np.stack([*[one] * 60, *middle, *[other] * 60]).astype(np.uint8)


@settings(max_examples=15, deadline=None)
@given(st.integers(8, 36))
def test_a_fade_is_covered_with_both_slopes(length: int) -> None:
    [span] = fades(measure(faded(length), 25.0, CONFIG), 1, CONFIG)
    assert span.first <= 61
    assert span.stop >= 60 + length - 1
    assert span.first >= 57
    assert span.stop <= 63 + length


def test_a_blink_is_no_fade() -> None:
    one = noise(1)
    blink = np.stack([*[one] * 60, *[one // 50] * 3, *[one] * 60])
    evidence = measure(blink, 25.0, CONFIG)
    assert not fades(evidence, 1, CONFIG)
    assert not hard_cuts(evidence, CONFIG).any()
