"""Clips as places in their sources: nothing is copied, nothing can be cropped."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contentv.base.errors import UserError
from contentv.curation.engine.scan import path_of
from contentv.data.entries import kind_of
from contentv.data.manifest import Clip


@dataclass(frozen=True)
class Virtual:
    """Clips whose paths start from `root`, and how many could not be given so, by reason."""

    root: Path
    clips: list[Clip]
    left_out: Mapping[str, int]


def point_into_sources(rows: Sequence[Mapping[str, Any]], root: Path | None) -> Virtual:
    """Give clips as frames of their sources.

    Left out are clips with a crop, of turned or unevenly timed videos, or with oblong pixels, and
    key frames of videos: the loader reads frames by number, as they are stored. UserError when a
    source lies outside `root`.
    """
    root = (root or _common([path_of(str(row["uri"])) for row in rows])).resolve()
    clips: list[Clip] = []
    left_out: dict[str, int] = {}
    for row in rows:
        if reason := _obstacle(row):
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            clips.append(_clip(row, root))
    return Virtual(root, clips, left_out)


def _common(paths: Sequence[Path]) -> Path:
    return Path(os.path.commonpath([path.resolve().parent for path in paths]))


def _obstacle(row: Mapping[str, Any]) -> str:
    if (row["crop_x"], row["crop_y"], row["crop_width"], row["crop_height"]) != (0, 0, 1, 1):
        return "needs a crop"
    if row["rotation"] or row["sar"] != 1:
        return "is turned, or has oblong pixels"
    if row["kind"] != "video":
        return "" if kind_of(str(row["uri"])) == "picture" else "is a key frame of a video"
    return "has uneven time stamps" if row["vfr"] else ""


def _clip(row: Mapping[str, Any], root: Path) -> Clip:
    path = path_of(str(row["uri"])).resolve()
    if not path.is_relative_to(root):
        raise UserError(f"root={root}: {path} lies outside; name a folder that holds all sources")
    is_video = row["kind"] == "video"
    fps = row["frames"] / row["seconds"] if is_video else 0.0
    return Clip(
        id=str(row["clip_id"]),
        path=path.relative_to(root).as_posix(),
        kind="video" if is_video else "picture",
        start=round(row["start"] * fps),
        frames=round(row["duration"] * fps) if is_video else 1,
        fps=fps,
        height=int(row["height"]),
        width=int(row["width"]),
        source=str(row["video_id"]),
    )
