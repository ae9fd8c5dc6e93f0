"""Rectangles in parts of a picture: how they overlap, join and are written in a row."""

from collections.abc import Iterable, Sequence

import numpy as np

from contentv.curation.step import Box


def overlap(first: Box, second: Box) -> float:
    """Area that two boxes share, in parts of the picture."""
    width = min(first.x + first.width, second.x + second.width) - max(first.x, second.x)
    height = min(first.y + first.height, second.y + second.height) - max(first.y, second.y)
    return max(width, 0.0) * max(height, 0.0)


def likeness(first: Box, second: Box) -> float:
    """Shared area over the area of both together: 1 for equal boxes, 0 for distant ones."""
    shared = overlap(first, second)
    together = first.width * first.height + second.width * second.height - shared
    return shared / together if together else 0.0


def hull(boxes: Sequence[Box]) -> Box:
    """Give the smallest box around one or more."""
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    right = max(box.x + box.width for box in boxes)
    bottom = max(box.y + box.height for box in boxes)
    return Box(left, top, right - left, bottom - top)


def grown(box: Box, across: float, down: float) -> Box:
    """Move every side outwards: `across` parts of the width, `down` parts of the height."""
    return Box(box.x - across, box.y - down, box.width + 2 * across, box.height + 2 * down)


def groups(boxes: Iterable[Box]) -> list[Box]:
    """Join boxes that overlap until none do; each is the hull of its group, the topmost first."""
    apart: list[Box] = []
    for box in boxes:
        whole = box
        while near := [other for other in apart if overlap(whole, other) > 0]:
            apart = [other for other in apart if other not in near]
            whole = hull([whole, *near])
        apart.append(whole)
    return sorted(apart, key=lambda box: (box.y, box.x))


def covered(boxes: Sequence[Box], within: Box) -> float:
    """Part of `within` that lies under boxes, 0..1; what they share counts once."""
    if not boxes:
        return 0.0
    table = np.array([(box.x, box.x + box.width, box.y, box.y + box.height) for box in boxes])
    columns = table[:, :2].clip(within.x, within.x + within.width)
    rows = table[:, 2:].clip(within.y, within.y + within.height)
    across, down = np.unique(columns), np.unique(rows)
    left, right = np.searchsorted(across, columns).T
    top, bottom = np.searchsorted(down, rows).T
    under = np.zeros((len(down) - 1, len(across) - 1))
    for box in range(len(boxes)):
        under[top[box] : bottom[box], left[box] : right[box]] = 1
    area = float(np.diff(down) @ under @ np.diff(across))
    return min(area / (within.width * within.height), 1.0)


def flat(boxes: Iterable[Box]) -> list[float]:
    """Write boxes one after the other, for a row: x, y, width and height of each."""
    return [side for box in boxes for side in (box.x, box.y, box.width, box.height)]


def unflat(numbers: Sequence[float]) -> list[Box]:
    """Read what `flat` wrote."""
    return [Box(*numbers[i : i + 4]) for i in range(0, len(numbers), 4)]
