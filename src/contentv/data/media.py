"""Reads clips as buckets show them: the one way from a file to the frames of a training batch."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from contentv.base.errors import ContentVError, UserError, WorldError
from contentv.base.types import Frame, Frames
from contentv.data.buckets import Bucket, Fit
from contentv.data.manifest import Clip, inside
from contentv.data.plan import Draw
from contentv.video.sandbox import clips_from_child

_TARGET = "contentv.video.parts:read_parts"
_LETTERS_PER_CHILD = 60_000  # a command line has its limits


def read_clip(
    root: Path, clip: Clip, fit: Fit, draw: Draw, *, seconds: float = 120.0, memory: int = 4 << 30
) -> Frames:
    """Decode the frames that `draw` chooses of a clip, resized and cut to its bucket: [t h w 3].

    The decoder is a child process limited to `seconds` and `memory` bytes. WorldError says what is
    wrong with the file; the plan then names a stand-in (`Plan.replacement`).
    """
    (found,) = read_clips(root, [(clip, fit, draw)], seconds=seconds, memory=memory)
    if isinstance(found, ContentVError):
        raise found
    return found


def read_clips(
    root: Path,
    shown: Iterable[tuple[Clip, Fit, Draw]],
    *,
    seconds: float = 120.0,
    memory: int = 4 << 30,
) -> Iterator[Frames | ContentVError]:
    """Yield for each clip what `read_clip` gives, or the error that it raises.

    Starting a child takes as long as decoding some dozens of small clips, so each decodes many.
    `seconds` are for one clip.
    """
    for parts in _chunks(_part(root, clip, fit, draw) for clip, fit, draw in shown):
        good = [part for part in parts if part.fault is None]
        answers = _answers(good, seconds, memory)
        for part in parts:
            yield part.fault or _checked(part, next(answers))


@dataclass(frozen=True)
class _Part:
    clip: Clip
    bucket: Bucket
    arguments: dict[str, Any]
    fault: UserError | None


def _part(root: Path, clip: Clip, fit: Fit, draw: Draw) -> _Part:
    bucket, (top, left) = fit.bucket, fit.corner(draw.down, draw.right)
    try:
        path = str(inside(root, clip.path))
    except UserError as error:
        return _Part(clip, bucket, {}, error)
    arguments = {
        "path": path,
        "offset": clip.offset,
        "length": clip.length,
        "kind": clip.kind,
        "times": [clip.start + time for time in fit.times(draw.start)],
        "resized": [fit.height, fit.width],
        "box": [top, left, bucket.height, bucket.width],
    }
    return _Part(clip, bucket, arguments, None)


def _chunks(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    chunk: list[_Part] = []
    letters = 0
    for part in parts:
        more = len(json.dumps(part.arguments))
        if chunk and letters + more > _LETTERS_PER_CHILD:
            yield chunk
            chunk, letters = [], 0
        chunk.append(part)
        letters += more
    if chunk:
        yield chunk


def _answers(parts: list[_Part], seconds: float, memory: int) -> Iterator[list[Frame] | str]:
    """Frames or fault of each part; a part that kills its child is at fault, and nobody else."""
    done = 0
    while done < len(parts):
        rest = parts[done:]
        try:
            for answer in clips_from_child(
                _TARGET,
                {"parts": [part.arguments for part in rest]},
                seconds=seconds,
                memory=memory,
                max_pixels=max(p.bucket.frames * p.bucket.height * p.bucket.width for p in rest),
            ):
                done += 1
                yield answer
            fault = "the decoder gave no answer"
        except WorldError as error:
            fault = str(error)
        except (ValueError, TypeError, KeyError):
            fault = "the decoder gave no sensible answer"
        if done < len(parts):
            done += 1
            yield fault


def _checked(part: _Part, answer: list[Frame] | str) -> Frames | WorldError:
    if isinstance(answer, str):
        return WorldError(f"{part.clip.id}: {answer}")
    bucket = part.bucket
    if [frame.shape[:2] for frame in answer] != [(bucket.height, bucket.width)] * bucket.frames:
        rule = "the decoder gave other frames than it was asked for"
        return WorldError(f"{part.clip.id}: {rule}")
    return np.stack(answer)
