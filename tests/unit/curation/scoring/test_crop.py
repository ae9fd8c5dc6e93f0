from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from contentv.curation.scoring.boxes import flat, overlap
from contentv.curation.scoring.crop import box_of, crops, frame_of, largest
from contentv.curation.settings import CropSettings
from contentv.curation.step import WHOLE, Box, Footage, Row, Span

SETTINGS = CropSettings()
TOUCHING = CropSettings(margin=0.0)
GRID = 20
SPAN = Span("a", "video", 0, 0.0, 5.0, 0, 5)
SUBTITLE = Box(0.2, 0.86, 0.6, 0.07)


def footage(width: int = 1280, height: int = 720) -> Footage:
    return Footage("v", Path("v.mp4"), "video", width, height, 24.0, Fraction(1, 24), 0)


def text_row(
    bands: tuple[Box, ...] = (),
    static: tuple[Box, ...] = (),
    source: tuple[Box, ...] = (),
    samples: tuple[tuple[Box, ...], ...] = ((),),
) -> Row:
    places = [
        number
        for sample, lines in enumerate(samples)
        for line in lines
        for number in (float(sample), *flat([line]))
    ]
    return {
        "text_bands": flat(bands),
        "text_static": flat(static),
        "text_source_bands": flat(source),
        "text_lines": places,
        "text_samples": len(samples),
    }


def overlay_row(
    *boxes: Box, borders: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
) -> Row:
    names = ("border_left", "border_top", "border_right", "border_bottom")
    return {"overlay_boxes": flat(boxes), **dict(zip(names, borders, strict=True))}


def crop(
    text: Row, overlay: Row | None = None, settings: CropSettings = SETTINGS, width: int = 1280
) -> Row:
    rows = [overlay_row() if overlay is None else overlay]
    return crops(footage(width), [SPAN], [text], rows, settings)[0]


@st.composite
def at_the_edges(draw: st.DrawFn) -> Box:
    """A box on the grid that starts or ends near an edge, as what is laid over does."""
    width, height = draw(st.integers(1, GRID)), draw(st.integers(1, 4))
    x, y = draw(st.integers(0, GRID - width)), draw(st.sampled_from([0, 1, 2, GRID - 5, GRID - 4]))
    box = Box(x / GRID, y / GRID, width / GRID, height / GRID)
    return box if draw(st.booleans()) else Box(box.y, box.x, box.height, box.width)


around = st.lists(at_the_edges(), max_size=6)


def best_on_grid(obstacles: list[Box], aspect: float) -> float:
    """Area of the largest crop allowed, by trying every rectangle on the grid; 0: none."""
    least, low, high = round(0.8 * GRID), 9 / 16 / 1.25, 16 / 9 * 1.25
    best = 0.0
    for x, y in product(range(GRID - least + 1), repeat=2):
        for right, bottom in product(range(least, GRID + 1), repeat=2):
            box = Box(x / GRID, y / GRID, (right - x) / GRID, (bottom - y) / GRID)
            if right - x < least or bottom - y < least or box.width * box.height <= best:
                continue
            if not low <= box.width / box.height * aspect <= high:
                continue
            if not any(overlap(box, other) > 1e-9 for other in obstacles):
                best = box.width * box.height
    return best


@given(around)
def test_the_crop_is_as_large_as_the_best_of_all_rectangles(obstacles: list[Box]) -> None:
    found = largest(frame_of(overlay_row(), 1.0, TOUCHING), obstacles, TOUCHING)
    best = best_on_grid(obstacles, 1.0)
    assert (found is None) == (best == 0)
    assert found is None or found.width * found.height == pytest.approx(best)


@given(around, st.floats(0.4, 3))
def test_with_limits_of_aspect_it_is_at_least_as_large(obstacles: list[Box], aspect: float) -> None:
    """Its aspect is reached between the grid's lines, so it may be larger, never smaller."""
    found = largest(frame_of(overlay_row(), aspect, TOUCHING), obstacles, TOUCHING)
    size = found.width * found.height if found else 0
    assert size >= best_on_grid(obstacles, aspect) - 1e-9


sides = st.floats(0, 0.2)


@given(around, st.tuples(sides, sides, sides, sides), st.integers(360, 2400))
def test_the_crop_keeps_every_rule(
    boxes: list[Box], borders: tuple[float, float, float, float], width: int
) -> None:
    row = crop(text_row(tuple(boxes[::2])), overlay_row(*boxes[1::2], borders=borders), width=width)
    kept, aspect = box_of(row), width / 720
    left, top, right, bottom = borders
    own = Box(left, top, 1 - left - right, 1 - top - bottom)
    assert overlap(kept, own) == pytest.approx(kept.width * kept.height)
    assume(not row["crop_fault"])
    assert not any(overlap(kept, box) > 1e-9 for box in boxes)
    assert kept.width >= 0.8 * own.width - 1e-9
    assert kept.height >= 0.8 * own.height - 1e-9
    shape, shape_before = kept.width / kept.height * aspect, own.width / own.height * aspect
    assert shape <= max(16 / 9 * 1.25, shape_before) + 1e-6
    assert shape >= min(9 / 16 / 1.25, shape_before) - 1e-6
    assert row["crop_lost"] == pytest.approx(
        1 - kept.width * kept.height / (own.width * own.height), abs=1e-9
    )


@given(st.integers(16, 4000))
def test_where_nothing_is_in_the_way_the_whole_picture_is_kept(width: int) -> None:
    row = crop(text_row(), width=width)
    assert box_of(row) == WHOLE
    assert (row["crop_lost"], row["crop_fault"], row["text_left_max"]) == (0, "", 0)


def test_a_subtitle_and_a_margin_are_cut_off() -> None:
    row = crop(text_row((SUBTITLE,), samples=((SUBTITLE,), ())))
    assert box_of(row) == Box(0, 0, 1, pytest.approx(0.855))  # type: ignore[arg-type]
    assert row["crop_lost"] == pytest.approx(0.145)
    assert (row["text_left_mean"], row["text_left_max"]) == (0, 0)


def test_the_sources_second_line_is_cut_off_where_that_can_be() -> None:
    for top, kept in ((0.82, 0.815), (0.7, 0.855)):
        second = Box(0.2, top, 0.6, 0.93 - top)
        row = crop(text_row((SUBTITLE,), source=(second,)))
        assert row["crop_height"] == pytest.approx(kept)


def test_a_logo_in_a_corner_costs_the_cheaper_side() -> None:
    logo = Box(0.9, 0.05, 0.06, 0.1)
    assert box_of(crop(text_row(), overlay_row(logo), TOUCHING)) == Box(0, 0, pytest.approx(0.9), 1)  # type: ignore[arg-type]
    wide = Box(0.7, 0.02, 0.25, 0.04)
    assert box_of(crop(text_row(static=(wide,)), settings=TOUCHING)).y == pytest.approx(0.06)


def test_text_across_the_middle_cannot_be_cropped() -> None:
    text = Box(0.3, 0.5, 0.4, 0.1)
    row = crop(text_row(static=(text,), samples=((text,), ())))
    assert row["crop_fault"] == "text_uncroppable"
    assert box_of(row) == WHOLE
    assert row["text_left_max"] == pytest.approx(0.04)
    assert row["text_left_mean"] == pytest.approx(0.02)


def test_borders_are_cut_off_and_what_lies_in_them_is_no_obstacle() -> None:
    row = crop(
        text_row((Box(0.2, 0.9, 0.6, 0.06),)), overlay_row(borders=(0, 0.12, 0, 0.12)), TOUCHING
    )
    assert box_of(row) == Box(0, 0.12, 1, pytest.approx(0.76))  # type: ignore[arg-type]
    assert row["crop_lost"] == 0


def test_text_left_is_a_part_of_what_is_kept() -> None:
    scene = Box(0.1, 0.1, 0.2, 0.1)
    row = crop(text_row((SUBTITLE,), samples=((SUBTITLE, scene),)))
    assert row["text_left_max"] == pytest.approx(0.02 / 0.855)


def test_a_wide_picture_loses_width_before_it_gets_wider() -> None:
    """2.39:1 is wider than training's limit, so a crop must not make it wider still."""
    row = crop(text_row((SUBTITLE,)), width=1721)
    kept = box_of(row)
    assert kept.width / kept.height == pytest.approx(1)
    assert kept.x == pytest.approx((1 - kept.width) / 2)


def test_without_any_measurement_the_whole_picture_is_kept() -> None:
    unknown = dict.fromkeys(text_row()), dict.fromkeys(overlay_row())
    row = crop(*unknown)
    assert box_of(row) == WHOLE
    assert row["text_left_mean"] is None


def test_borders_that_leave_nothing_are_none() -> None:
    assert box_of(crop(text_row(), overlay_row(borders=(0.5, 0.0, 0.5, 0.0)))) == WHOLE
