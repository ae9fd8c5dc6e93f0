"""Frames of exported clips as a captioner wants them, read in child processes."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from contentv.base.errors import ContentVError, WorldError
from contentv.curation.captions.captioner import Sampling, Shown
from contentv.data.manifest import Clip, inside
from contentv.video.sandbox import clips_from_child

_TARGET = "contentv.video.parts:read_parts"
_SECONDS, _MEMORY = 120.0, 4 << 30


def show(root: Path, clips: Sequence[Clip], sampling: Sampling) -> Iterator[Shown | WorldError]:
    """Yield for each clip its frames, or why it cannot be read; one child reads them all.

    A clip that takes its child with it is the one at fault; the next ones get another child.
    """
    done = 0
    while done < len(clips):
        rest = clips[done:]
        numbers = [frame_numbers(clip, sampling) for clip in rest]
        parts = [_part(root, *pair, sampling) for pair in zip(rest, numbers, strict=True)]
        most = max(clip.height * clip.width * clip.frames for clip in rest)
        try:
            found = clips_from_child(
                _TARGET, {"parts": parts}, seconds=_SECONDS, memory=_MEMORY, max_pixels=most
            )
            for clip, wanted, frames in zip(rest, numbers, found, strict=True):
                done += 1
                yield _shown(clip, wanted, frames)
        except (ContentVError, ValueError) as error:
            done += 1
            yield WorldError(f"{rest[0].id}: {error}")


def frame_numbers(clip: Clip, sampling: Sampling) -> list[int]:
    """Frames at `sampling.rate` a second, from half an interval on; the middle one at least."""
    if sampling.rate is None or clip.kind == "picture":
        return list(range(min(clip.frames, sampling.most)))
    count = min(max(1, round(clip.frames / clip.fps * sampling.rate)), sampling.most, clip.frames)
    return [int((2 * i + 1) * clip.frames / (2 * count)) for i in range(count)]


def _part(root: Path, clip: Clip, numbers: list[int], sampling: Sampling) -> dict[str, Any]:
    scale = min(1.0, (sampling.pixels / (clip.height * clip.width)) ** 0.5)
    height, width = max(1, round(clip.height * scale)), max(1, round(clip.width * scale))
    return {
        "path": str(inside(root, clip.path)),
        "offset": clip.offset,
        "length": clip.length,
        "kind": clip.kind,
        "times": [clip.start + number for number in numbers],
        "resized": [height, width],
        "box": [0, 0, height, width],
    }


def _shown(clip: Clip, numbers: list[int], frames: Any) -> Shown | WorldError:  # noqa: ANN401
    if isinstance(frames, str):
        return WorldError(f"{clip.id}: {frames}")
    if len(frames) != len(numbers):
        return WorldError(f"{clip.id}: gave {len(frames)} frames instead of {len(numbers)}")
    return Shown(frames, [number / clip.fps if clip.fps else 0.0 for number in numbers])
