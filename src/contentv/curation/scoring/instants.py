"""Which of the pictures of a video show a clip, and how to choose a few of them evenly."""

from bisect import bisect_left
from collections.abc import Sequence

from contentv.curation.step import Span


def inside(times: Sequence[float], span: Span) -> range:
    """Find the pictures of a clip: indices into `times`, which ascend; empty where none was seen.

    They are the ones that `Span.holds`.
    """
    first = bisect_left(times, span.start)
    if span.kind == "picture":
        return range(first, first + (times[first : first + 1] == [span.start]))
    return range(first, bisect_left(times, span.end))


def spread(times: Sequence[float], span: Span, count: int) -> list[int]:
    """Choose `count` pictures of a clip at uniform time: indices, empty where none was seen.

    Each is the nearest to the middle of one of `count` equal parts of the clip, so the same is
    chosen twice where there are few; of two that are equally near, the earlier.
    """
    seen = inside(times, span)
    if not seen:
        return []
    part = (span.end - span.start) / count
    middles = [span.start + (number + 0.5) * part for number in range(count)]
    return [min(seen, key=lambda index: abs(times[index] - middle)) for middle in middles]
