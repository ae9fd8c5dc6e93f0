"""Small still pictures of chosen moments of a stranger's file. Runs in a child process.

`stills` is called through `video.sandbox.arrays_from_child`.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from PIL import Image

from contentv.base.errors import MediaError
from contentv.video.io import open_video
from contentv.video.pictures import upright_rgb
from contentv.video.probe import PICTURE_FORMATS
from contentv.video.sandbox import Item
from contentv.video.timing import in_order


def stills(path: str, kind: str, *, moments: Sequence[int], side: int) -> Iterator[Item]:
    """Yield the frame shown at each of `moments` (time stamps), upright, its long side `side`.

    A picture file is shown once for each moment. MediaError says why nothing can be seen.
    """
    try:
        with Path(path).open("rb") as file:
            shown = _video(file, moments) if kind == "video" else _picture(file, moments)
            for moment, picture in shown:
                picture.thumbnail((side, side))
                yield np.asarray(picture, np.uint8), {"moment": moment}
    except av.error.MemoryError as error:
        raise MemoryError from error
    except Image.DecompressionBombError as error:
        raise MediaError("has too many pixels", "unsupported") from error
    except (av.error.FFmpegError, OSError, SyntaxError, ValueError) as error:
        raise MediaError(f"cannot be decoded ({' '.join(str(error).split())})") from error


def _picture(file: BinaryIO, moments: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
    with Image.open(file, formats=PICTURE_FORMATS) as picture:
        upright = upright_rgb(picture)
    yield from ((moment, upright.copy()) for moment in moments)


def _video(file: BinaryIO, moments: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
    with open_video(file) as container:
        if not container.streams.video:
            raise MediaError("has no video in it", "unsupported")
        container.streams.video[0].thread_count = 1
        for moment in moments:
            picture = _at(container, moment)
            if picture:
                yield moment, picture


def _at(container: InputContainer, moment: int) -> Image.Image | None:
    """The first frame that is shown at `moment` or later; None after the last one."""
    stream = container.streams.video[0]
    container.seek(max(0, moment), stream=stream, backward=True)
    for frame, pts in in_order(container.decode(stream)):
        if pts >= moment:
            width = round(frame.width * float(stream.sample_aspect_ratio or 1))
            shown: Any = frame.reformat(width=width, format="rgb24").to_ndarray()
            return Image.fromarray(np.rot90(shown, round(frame.rotation / 90) % 4))
    return None
