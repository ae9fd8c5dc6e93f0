"""Measures clips whose size is not known yet, in child processes."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from contentv.base.errors import UserError, WorldError
from contentv.base.files import describe_os_error
from contentv.base.progress import progress
from contentv.data.manifest import Clip, inside
from contentv.video.sandbox import values_from_child

_TARGET = "contentv.video.probe:measure"
_FILES_PER_CHILD = 64  # starting a child takes as long as measuring some ten small files
_LETTERS_PER_CHILD = 30_000  # a command line has its limits
_FILES_PER_SAVE = 2048
_MOST_SIDE, _MOST_FRAMES, _MOST_FPS = 1 << 16, 1 << 32, 1e6


def measure_clips(
    root: Path,
    clips: Sequence[Clip],
    *,
    known: Iterable[Clip] = (),
    workers: int,
    save: Callable[[list[Clip]], None] = lambda _: None,
    seconds: float = 60.0,
    memory: int = 4 << 30,
) -> list[Clip]:
    """Fill in the size of each clip, or its fault, in the same order.

    What a clip of `known` says of a file in the same state (size and time of change) is taken over,
    the rest is measured by `workers` children at a time, each file in `seconds` and `memory` bytes
    at most. A file that kills its child is that clip's fault and nobody else's. `save` is called
    with all clips now and then, so that hours of measuring outlive a crash.
    """
    before = {_bytes_of(clip): clip for clip in known if clip.stamp and clip.is_measured}
    found = [_recall(_find(root, clip), before) for clip in clips]
    todo = [i for i, clip in enumerate(found) if not clip.fault and not clip.is_measured]
    pool = ThreadPoolExecutor(max(1, workers))
    try:
        chunks = _chunks([found[i] for i in todo])
        jobs = pool.map(lambda chunk: _measure(root, chunk, seconds, memory), chunks)
        measured = chain.from_iterable(jobs)
        with progress(len(todo), "measuring clips") as line:
            for done, (i, clip) in enumerate(zip(todo, measured, strict=True), start=1):
                found[i] = clip
                line.advance()
                if done % _FILES_PER_SAVE == 0:
                    save(found)
    finally:
        pool.shutdown(cancel_futures=True)
    return found


def _find(root: Path, clip: Clip) -> Clip:
    """Note the state of a clip's file; forget what was measured when that was another state."""
    if clip.fault:
        return clip
    try:
        place = _place(root, clip.path)
        state = place.stat()
    except UserError as error:
        return replace(clip, fault=str(error))
    except OSError as error:
        return replace(clip, fault=f"{clip.path}: {describe_os_error(error)}")
    stamp = f"{state.st_size}-{state.st_mtime_ns}"
    if clip.is_measured and clip.stamp in ("", stamp):
        return clip
    return replace(clip, frames=0, fps=0.0, height=0, width=0, stamp=stamp)


def _place(root: Path, path: str) -> Path:
    # Following every part of every path costs seconds; folders repeat, and most files are no links.
    folder, _, name = path.rpartition("/")
    place = _folder(root, folder) / name
    return inside(root, path) if place.is_symlink() else place


@lru_cache(maxsize=4096)
def _folder(root: Path, folder: str) -> Path:
    return inside(root, folder) if folder else root


def _recall(clip: Clip, before: Mapping[tuple[str, int, int, str], Clip]) -> Clip:
    old = before.get(_bytes_of(clip))
    if old is None or clip.fault or clip.is_measured:
        return clip
    return replace(clip, frames=old.frames, fps=old.fps, height=old.height, width=old.width)


def _bytes_of(clip: Clip) -> tuple[str, int, int, str]:
    return clip.path, clip.offset, clip.length, clip.stamp


def _chunks(clips: Sequence[Clip]) -> Iterator[list[Clip]]:
    chunk: list[Clip] = []
    letters = 0
    for clip in clips:
        if len(chunk) == _FILES_PER_CHILD or letters > _LETTERS_PER_CHILD:
            yield chunk
            chunk, letters = [], 0
        chunk.append(clip)
        letters += len(os.fsencode(clip.path))
    if chunk:
        yield chunk


def _measure(root: Path, chunk: list[Clip], seconds: float, memory: int) -> list[Clip]:
    done: list[Clip] = []
    while len(done) < len(chunk):
        rest = chunk[len(done) :]
        places = [[clip.path, clip.offset, clip.length, clip.kind] for clip in rest]
        arguments = {"root": str(root), "places": places}
        answers = values_from_child(_TARGET, arguments, seconds=seconds, memory=memory)
        done += _fill_in(rest, answers)
    return done


def _fill_in(clips: list[Clip], answers: Iterator[dict[str, Any]]) -> Iterator[Clip]:
    """Yield a measured clip for each answer; the first that gets none is faulty and the last."""
    for clip in clips:
        try:
            filled = _filled(clip, next(answers))
        except WorldError as error:
            yield replace(clip, fault=str(error))
            return
        except (StopIteration, ValueError, TypeError, KeyError):
            yield replace(clip, fault="the decoder gave no sensible answer")
            return
        yield filled


def _filled(clip: Clip, answer: dict[str, Any]) -> Clip:
    # The child has read a stranger's file, so what it says is checked like that file.
    if "fault" in answer:
        return replace(clip, fault=str(answer["fault"]))
    frames, height, width = (int(answer[name]) for name in ("frames", "height", "width"))
    fps = float(answer["fps"])
    sides = 0 < min(height, width) <= max(height, width) <= _MOST_SIDE
    speed = 0 < fps <= _MOST_FPS if clip.kind == "video" else fps == 0
    if not (sides and speed and 0 < frames <= _MOST_FRAMES):
        raise ValueError(answer)
    return replace(clip, frames=frames, fps=fps, height=height, width=width)
