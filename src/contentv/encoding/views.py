"""What training would look at: which parts of which clips, and the names of their latents."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from contentv.data.buckets import Bucket, Fit
from contentv.data.manifest import Clip

MIDDLE = 0.5  # of a picture that is larger than its bucket, the part in the middle is shown
MOST_VIEWS = 256
_MOST_PIXELS = 1 << 28  # of all frames in a shard, whose file is then at most 64 MiB


@dataclass(frozen=True, slots=True)
class View:
    """A part of a clip as its bucket shows it; `start` in 0..1 chooses the first frame."""

    clip: Clip
    fit: Fit
    start: float
    key: str


def view_key(encoder: str, clip: Clip, fit: Fit, start: float) -> str:
    """Name of a view's latents: 32 hex digits of all that decides them.

    That is `encoder` (the identity of its weights and its number format), the clip's file and its
    state when it was measured, the frames, the size and the part of the picture.
    """
    source = (clip.path, clip.stamp, clip.offset, clip.length, clip.kind, clip.start)
    corner = fit.corner(MIDDLE, MIDDLE)
    shown = (fit.times(start), fit.height, fit.width, corner, fit.bucket)
    text = repr((encoder, source, shown)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=16).hexdigest()


def list_views(clips: Iterable[tuple[Clip, Fit]], windows: int, encoder: str) -> list[View]:
    """Give every view once that a stage of so many windows can draw of these clips."""
    views: dict[str, View] = {}
    for clip, fit in clips:
        for window in range(windows):
            start = (window + 0.5) / windows  # as data/planned.py places them
            key = view_key(encoder, clip, fit, start)
            views.setdefault(key, View(clip, fit, start, key))
    return list(views.values())


def share_out(views: Iterable[View]) -> Iterator[list[View]]:
    """Put views of one bucket together, as many as a shard holds.

    When some of these groups are finished, the rest shared out anew gives the other groups.
    """
    by_bucket: dict[Bucket, list[View]] = {}
    for view in views:
        by_bucket.setdefault(view.fit.bucket, []).append(view)
    for bucket, members in by_bucket.items():
        pixels = bucket.frames * bucket.height * bucket.width
        size = min(MOST_VIEWS, max(1, _MOST_PIXELS // pixels))
        yield from (members[i : i + size] for i in range(0, len(members), size))
