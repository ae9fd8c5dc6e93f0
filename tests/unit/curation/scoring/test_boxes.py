import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contentv.curation.scoring.boxes import covered, flat, groups, hull, likeness, overlap, unflat
from contentv.curation.step import WHOLE, Box

GRID = 16


@st.composite
def on_grid(draw: st.DrawFn) -> Box:
    """A box whose sides lie on sixteenths, which floats hold exactly."""
    x, y = draw(st.integers(0, GRID - 1)), draw(st.integers(0, GRID - 1))
    width, height = draw(st.integers(1, GRID - x)), draw(st.integers(1, GRID - y))
    return Box(x / GRID, y / GRID, width / GRID, height / GRID)


some = st.lists(on_grid(), max_size=6)


def drawn(boxes: list[Box]) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    cells = np.zeros((GRID, GRID), bool)
    for box in boxes:
        left, top, width, height = (round(side * GRID) for side in flat([box]))
        cells[top : top + height, left : left + width] = True
    return cells


@given(some, on_grid())
def test_the_covered_part_is_what_drawing_the_boxes_covers(boxes: list[Box], within: Box) -> None:
    inside = drawn([within])
    assert covered(boxes, within) == pytest.approx(drawn(boxes)[inside].mean())


@given(on_grid(), on_grid())
def test_likeness_is_the_ratio_of_drawn_cells(first: Box, second: Box) -> None:
    one, other = drawn([first]), drawn([second])
    assert likeness(first, second) == pytest.approx((one & other).sum() / (one | other).sum())
    assert likeness(first, second) == likeness(second, first)
    assert likeness(first, first) == 1


@given(some)
def test_groups_do_not_overlap_and_cover_every_box(boxes: list[Box]) -> None:
    found = groups(boxes)
    for place, group in enumerate(found):
        assert not any(overlap(group, other) > 0 for other in found[place + 1 :])
    for box in boxes:
        assert sum(overlap(box, group) == box.width * box.height for group in found) == 1
    if found:
        assert hull(found) == hull(boxes)


@given(some)
def test_groups_do_not_depend_on_the_order(boxes: list[Box]) -> None:
    assert groups(boxes) == groups(reversed(boxes))


@given(some)
def test_what_is_written_flat_is_read_again(boxes: list[Box]) -> None:
    assert unflat(flat(boxes)) == boxes


def test_nothing_covers_nothing() -> None:
    assert covered([], WHOLE) == 0
    assert groups([]) == []
