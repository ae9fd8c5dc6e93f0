"""Which videos are to be visited, and for what."""

from collections.abc import Collection, Sequence
from typing import Any

from contentv.curation.engine.chain import VIDEO_COLUMNS, Chain
from contentv.curation.engine.parts import ID, Parts
from contentv.curation.engine.scan import Source
from contentv.curation.engine.visit import UNREADABLE, Task
from contentv.curation.tables import rows_of

_PIXELS_A_BYTE = 100  # of common videos; a picture file has fewer, and costs little


def tasks_of(
    videos: Sequence[Source], chain: Chain, parts: Parts, again: Collection[str] = ()
) -> list[Task]:
    """Say what is missing of each video, the longest work first.

    A video that failed is left alone, unless its name is in `again` or its file could not be read,
    which may be otherwise now.
    """
    held = {key: parts.held(key) for key in chain.columns}
    missing = {
        video.video_id: frozenset(
            key for key in held if video.video_id not in held[key] or video.video_id in again
        )
        for video in videos
    }
    lacking = {video for video, keys in missing.items() if keys}
    said = parts.table(chain.video_key, VIDEO_COLUMNS, lacking & held[chain.video_key])
    rows = {row[ID]: row for row in rows_of(said)}
    tasks = []
    for video in videos:
        row = rows.get(video.video_id, {})
        if video.video_id in lacking and (video.video_id in again or _may_work(video, row)):
            tasks.append((_cost(video, row), Task(video, missing[video.video_id])))
    tasks.sort(key=lambda pair: (-pair[0], pair[1].source.video_id))
    return [task for _, task in tasks]


def _may_work(video: Source, row: dict[str, Any]) -> bool:
    """Whether a video that was visited may now have what it lacks."""
    if row.get("status") != "failed":
        return True
    return row["error_class"] == UNREADABLE and row["error"] != video.fault


def _cost(video: Source, row: dict[str, Any]) -> float:
    """Pixels to decode: as known from an earlier visit, or as many as such a file may have."""
    if row.get("frames"):
        return float(row["frames"] * row["width"] * row["height"])
    return float(video.files[0].stamp.size * (_PIXELS_A_BYTE if video.kind == "video" else 1))
