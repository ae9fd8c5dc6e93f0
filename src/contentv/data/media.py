"""Reads a clip as a bucket shows it: the one way from a file to the frames of a training batch."""

from pathlib import Path
from typing import Any

import numpy as np

from contentv.base.errors import WorldError
from contentv.base.types import Frame, Frames
from contentv.data.buckets import Bucket, Fit
from contentv.data.manifest import Clip, inside
from contentv.data.plan import Draw
from contentv.video.sandbox import frames_from_child


def read_clip(
    root: Path, clip: Clip, fit: Fit, draw: Draw, *, seconds: float = 120.0, memory: int = 4 << 30
) -> Frames:
    """Decode the frames that `draw` chooses of a clip, resized and cut to its bucket: [t h w 3].

    The decoder is a child process limited to `seconds` and `memory` bytes. WorldError says what is
    wrong with the file; the plan then names a stand-in (`Plan.replacement`).
    """
    bucket = fit.bucket
    top, left = fit.corner(draw.down, draw.right)
    arguments = {
        "path": str(inside(root, clip.path)),
        "offset": clip.offset,
        "length": clip.length,
        "kind": clip.kind,
        "times": [clip.start + time for time in fit.times(draw.start)],
        "resized": [fit.height, fit.width],
        "box": [top, left, bucket.height, bucket.width],
    }
    try:
        return np.stack(_frames(bucket, arguments, seconds, memory))
    except WorldError as error:
        raise WorldError(f"{clip.id}: {error}") from error


def _frames(bucket: Bucket, arguments: dict[str, Any], seconds: float, memory: int) -> list[Frame]:
    pairs = frames_from_child(
        "contentv.video.parts:read_part",
        arguments,
        seconds=seconds,
        memory=memory,
        max_pixels=bucket.frames * bucket.height * bucket.width,
    )
    frames = [frame for frame, _ in pairs]
    if [frame.shape[:2] for frame in frames] != [(bucket.height, bucket.width)] * bucket.frames:
        raise WorldError("the decoder gave other frames than it was asked for")
    return frames
