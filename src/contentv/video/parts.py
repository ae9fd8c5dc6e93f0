"""Reads what a bucket shows of strangers' clips: chosen frames, resized and cut. Runs in a child.

`read_parts` is called through `video.sandbox.clips_from_child`, many clips to a child.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from contentv.base.errors import WorldError
from contentv.base.types import Frame
from contentv.video.io import open_video, to_rgb
from contentv.video.pictures import upright_rgb
from contentv.video.probe import PICTURE_FORMATS, part_of_file


def read_parts(parts: Sequence[dict[str, Any]]) -> Iterator[tuple[Frame, float] | dict[str, str]]:
    """Yield the frames of each part (arguments of `read_part`), then what is wrong with it."""
    for part in parts:
        fault = ""
        try:
            yield from read_part(**part)
        except WorldError as error:
            fault = str(error)
        yield {"fault": fault}


def read_part(
    path: str,
    *,
    offset: int,
    length: int,
    kind: str,
    times: Sequence[int],
    resized: Sequence[int],
    box: Sequence[int],
) -> Iterator[tuple[Frame, float]]:
    """Yield the frames numbered `times`, rising, each brought to `resized` and cut to `box`.

    `offset` and `length` are bytes of the file (0: all of it), `kind` is video or picture,
    `resized` is height and width, `box` is top, left, height, width in that.
    """
    try:
        with Path(path).open("rb") as whole:
            file = part_of_file(whole, offset, length) if length else whole
            frames = _video(file, times) if kind == "video" else _picture(file)
            for frame in frames:
                yield _cut(frame, resized, box), 0.0
    except av.error.MemoryError as error:
        raise MemoryError from error
    except (av.error.FFmpegError, OSError, SyntaxError, ValueError) as error:
        raise WorldError(f"cannot be decoded ({' '.join(str(error).split())})") from error


def _video(file: BinaryIO, times: Sequence[int]) -> Iterator[Image.Image]:
    wanted = iter(times)
    next_time = next(wanted, None)
    reformatter = VideoReformatter()
    size = None
    with open_video(file) as container:
        if not container.streams.video:
            raise WorldError("has no video in it")
        for number, frame in enumerate(container.decode(video=0)):
            size = size or (frame.width, frame.height)
            if (frame.width, frame.height) != size:
                raise WorldError("changes its size midway")
            if number == next_time:
                yield Image.fromarray(to_rgb(frame, reformatter))
                next_time = next(wanted, None)
            if next_time is None:
                return
    raise WorldError(f"ends before frame {next_time}")


def _picture(file: BinaryIO) -> Iterator[Image.Image]:
    with Image.open(file, formats=PICTURE_FORMATS) as picture:
        yield upright_rgb(picture)


def _cut(picture: Image.Image, resized: Sequence[int], box: Sequence[int]) -> Frame:
    height, width = resized
    top, left, high, wide = box
    if picture.size != (width, height):
        # Pillow's bicubic averages over what it leaves out, so that fine patterns do not shimmer.
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(picture.crop((left, top, left + wide, top + high)), np.uint8)
