"""The part of the picture that is kept: the largest without borders, subtitles and overlays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

from contentv.curation.scoring.boxes import covered, grown, overlap, unflat
from contentv.curation.settings import CropSettings
from contentv.curation.step import WHOLE, Box, Footage, Row, Span

_WIDEST = 16 / 9  # the aspects of training go from its inverse to this
_NOTHING = 1e-9  # parts of the picture: what is left of a division


def crops(
    footage: Footage,
    spans: Sequence[Span],
    text_rows: Sequence[Row],
    overlay_rows: Sequence[Row],
    settings: CropSettings,
) -> list[Row]:
    """Give the crop of each clip, in parts of the picture, and what it does.

    `crop_lost` is the part of the border-free picture that is cut off; `crop_fault` is empty, or
    `text_uncroppable` when no rectangle is large enough: then only borders are cut off.
    `text_left_mean` and `text_left_max` are the parts of the crop that lie under text, over the
    samples; None where there was no sample.
    """
    aspect = footage.width / footage.height
    return [
        _row(text, overlay, aspect, settings)
        for _, text, overlay in zip(spans, text_rows, overlay_rows, strict=True)
    ]


def box_of(row: Row) -> Box:
    """Read the crop of a row."""
    names = ("crop_x", "crop_y", "crop_width", "crop_height")
    return Box(*(cast("float", row[name]) for name in names))


@dataclass(frozen=True)
class Frame:
    """Where a crop is looked for: `picture` is what borders leave, `inner` lies off their edges."""

    picture: Box
    inner: Box
    aspect: float


def frame_of(overlay: Row, aspect: float, settings: CropSettings) -> Frame:
    """Read the borders; where they leave nothing, in a black clip, they are no borders."""
    borders = [_number(overlay, f"border_{side}") for side in ("left", "top", "right", "bottom")]
    picture = _between(borders)
    margins = settings.margin / aspect, settings.margin
    off = [side + (margins[i % 2] if side else 0.0) for i, side in enumerate(borders)]
    inner = _between(off)
    if min(inner.width, inner.height) <= 0:
        return Frame(WHOLE, WHOLE, aspect)
    return Frame(picture, inner, aspect)


def largest(frame: Frame, obstacles: Sequence[Box], settings: CropSettings) -> Box | None:
    """Find the largest rectangle that avoids all obstacles; None when none is large enough.

    It keeps `min_side` of either side of the picture, and its aspect within what is trained, or
    at least no further out than the picture's. Exact: the sides of a largest rectangle lie on
    edges of obstacles, or on the picture's; only for its aspect it is made narrower then.
    """
    least = frame.picture.width * settings.min_side, frame.picture.height * settings.min_side
    best: Box | None = None
    for free in _free(frame.inner, obstacles, least):
        fitting = _in_aspect(free, frame, settings.wider)
        if _reaches(fitting, least) and (best is None or _area(fitting) > _area(best) + _NOTHING):
            best = fitting
    return best


def _row(text: Row, overlay: Row, aspect: float, settings: CropSettings) -> Row:
    frame = frame_of(overlay, aspect, settings)
    own = _numbers(text, "text_bands") + _numbers(text, "text_static")
    own += _numbers(overlay, "overlay_boxes")
    # Lines of the source that the clip's samples do not show are avoided where that can be.
    tries = (own + _numbers(text, "text_source_bands"), own)
    margins = settings.margin / aspect, settings.margin
    boxes = ([grown(box, *margins) for box in unflat(numbers)] for numbers in tries)
    found = next(filter(None, (largest(frame, around, settings) for around in boxes)), None)
    kept = found or frame.inner
    left = _text_left(text, kept)
    return {
        "crop_x": kept.x,
        "crop_y": kept.y,
        "crop_width": kept.width,
        "crop_height": kept.height,
        "crop_lost": max(0.0, 1 - _area(kept) / _area(frame.picture)),
        "crop_fault": "" if found else "text_uncroppable",
        "text_left_mean": sum(left) / len(left) if left else None,
        "text_left_max": max(left) if left else None,
    }


def _text_left(text: Row, kept: Box) -> list[float]:
    shown: list[list[Box]] = [[] for _ in range(int(_number(text, "text_samples")))]
    numbers = _numbers(text, "text_lines")
    for place in range(0, len(numbers), 5):
        shown[int(numbers[place])].append(Box(*numbers[place + 1 : place + 5]))
    return [covered(lines, kept) for lines in shown]


def _free(inner: Box, obstacles: Sequence[Box], least: tuple[float, float]) -> Iterator[Box]:
    """Yield every rectangle that touches an obstacle or the edge on each side, and many others."""
    right, bottom = inner.x + inner.width, inner.y + inner.height
    core = Box(
        right - least[0], bottom - least[1], 2 * least[0] - inner.width, 2 * least[1] - inner.height
    )
    if any(overlap(core, box) > _NOTHING for box in obstacles):
        return  # every rectangle that is large enough holds the core
    for low in sorted({inner.x, *(box.x + box.width for box in obstacles)}):
        for high in sorted({right, *(box.x for box in obstacles)}, reverse=True):
            if not inner.x <= low <= high - least[0] + _NOTHING or high > right:
                continue
            between = Box(low, inner.y, high - low, inner.height)
            for top, end in _gaps(between, obstacles):
                yield Box(low, top, high - low, end - top)


def _gaps(strip: Box, obstacles: Sequence[Box]) -> Iterator[tuple[float, float]]:
    """Yield the parts of a strip from top to bottom that no obstacle reaches into."""
    inside = sorted(
        (box for box in obstacles if overlap(strip, box) > _NOTHING), key=lambda box: box.y
    )
    top = strip.y
    for box in inside:
        if box.y > top:
            yield top, box.y
        top = max(top, box.y + box.height)
    if top < strip.y + strip.height:
        yield top, strip.y + strip.height


def _in_aspect(free: Box, frame: Frame, wider: float) -> Box:
    """Make a rectangle narrower or lower, about its middle, until its aspect is allowed."""
    own = frame.picture.width / frame.picture.height * frame.aspect
    high, low = max(own, _WIDEST * wider), min(own, 1 / (_WIDEST * wider))
    shape = free.width / free.height * frame.aspect
    if shape > high * (1 + _NOTHING):
        width = free.width * high / shape
        return Box(free.x + (free.width - width) / 2, free.y, width, free.height)
    if shape < low * (1 - _NOTHING):
        height = free.height * shape / low
        return Box(free.x, free.y + (free.height - height) / 2, free.width, height)
    return free


def _reaches(box: Box, least: tuple[float, float]) -> bool:
    return box.width >= least[0] - _NOTHING and box.height >= least[1] - _NOTHING


def _area(box: Box) -> float:
    return box.width * box.height


def _between(borders: Sequence[float]) -> Box:
    left, top, right, bottom = borders
    return Box(left, top, 1 - left - right, 1 - top - bottom)


def _number(row: Row, name: str) -> float:
    return cast("float", row[name] or 0.0)


def _numbers(row: Row, name: str) -> list[float]:
    return cast("list[float]", row[name] or [])
