"""Cuts a clip out of a stranger's video to the frame, and writes it anew. Runs in a child process.

Copying packets would begin at the key frame before: another shot, or seconds of it. So frames are
decoded, cropped and encoded again; see `video.sandbox.values_from_child`.
"""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image

from contentv.base.errors import MediaError
from contentv.video.io import ENCODER, open_video, tag_colours, to_yuv
from contentv.video.pictures import upright_rgb
from contentv.video.probe import PICTURE_FORMATS
from contentv.video.timing import in_order

# Each second begins with a frame that needs no other and that none before it looks beyond, so that
# a loader may begin there. Quality 14 cannot be told from the source by eye.
_OPTIONS = {"crf": "14", "preset": "medium", "threads": "1"}
_LIKE = 28.0  # dB: encoding alone stays above; a neighbour across a cut is far below


def cut_clip(
    path: str, out: str, *, start_pts: int, end_pts: int, most: int, box: list[float]
) -> Iterator[dict[str, Any]]:
    """Write the frames with time stamps in [`start_pts`, `end_pts`), at most `most`, as an MP4.

    `box` is x, y, width, height in parts of the upright picture; sides become even. Yields one
    dict: frames, fps, height, width. The file's first and last frames are compared with the
    source's. MediaError when frames are missing or differ.
    """
    try:
        with Path(path).open("rb") as file, open_video(file) as container:
            kept = _Kept()
            source = _frames(container, start_pts, end_pts, most)
            fps = _write(Path(out), kept.noting(_pictures(source, container, box)))
        yield _checked(Path(out), kept, fps)
    except av.error.MemoryError as error:
        raise MemoryError from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"cannot be cut ({' '.join(str(error).split())})") from error


def cut_picture(path: str, out: str, *, box: list[float]) -> Iterator[dict[str, Any]]:
    """Write a picture file's part `box` as PNG; yields one dict: frames (1), fps (0), sides."""
    try:
        with Image.open(path, formats=PICTURE_FORMATS) as picture:
            upright = np.asarray(upright_rgb(picture), np.uint8)
        yield _write_picture(Path(out), _cropped(upright, box))
    except Image.DecompressionBombError as error:
        raise MediaError("has too many pixels", "unsupported") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(f"cannot be cut ({' '.join(str(error).split())})") from error


def cut_frame(path: str, out: str, *, pts: int, box: list[float]) -> Iterator[dict[str, Any]]:
    """Write the frame of a video with time stamp `pts` as PNG; yields one dict as `cut_picture`."""
    try:
        with Path(path).open("rb") as file, open_video(file) as container:
            frames = _pictures(_frames(container, pts, pts + 1, 1), container, box)
            picture, _ = next(frames, (None, None))
        if picture is None:
            raise MediaError("has no frame at that time")
        yield _write_picture(Path(out), picture)
    except av.error.MemoryError as error:
        raise MemoryError from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise MediaError(f"cannot be cut ({' '.join(str(error).split())})") from error


class _Kept:
    """The first and the last picture that went by, and how many there were."""

    def __init__(self) -> None:
        self.count = 0
        self.first: NDArray[np.uint8] | None = None
        self.last: NDArray[np.uint8] | None = None

    def noting(
        self, pictures: Iterator[tuple[NDArray[np.uint8], Fraction]]
    ) -> Iterator[tuple[NDArray[np.uint8], Fraction]]:
        for picture, time in pictures:
            self.first = picture if self.first is None else self.first
            self.last = picture
            self.count += 1
            yield picture, time


def _frames(
    container: InputContainer, start: int, end: int, most: int
) -> Iterator[tuple[VideoFrame, int]]:
    stream = container.streams.video[0]
    stream.thread_count = 1
    container.seek(max(0, start), stream=stream, backward=True)
    count = 0
    for frame, pts in in_order(container.decode(stream)):
        if pts >= end or count == most:
            return
        if pts >= start:
            count += 1
            yield frame, pts


def _pictures(
    frames: Iterator[tuple[VideoFrame, int]], container: InputContainer, box: list[float]
) -> Iterator[tuple[NDArray[np.uint8], Fraction]]:
    """Upright pictures with square pixels, cropped, and their times from the first on."""
    stream: VideoStream = container.streams.video[0]
    ratio = float(stream.sample_aspect_ratio or 1)
    first, reformatter = None, VideoReformatter()
    for frame, pts in frames:
        first = pts if first is None else first
        width = round(frame.width * ratio)
        shown = reformatter.reformat(frame, width=width, format="rgb24", interpolation="BICUBIC")
        upright = np.rot90(np.asarray(shown.to_ndarray(), np.uint8), round(frame.rotation / 90) % 4)
        yield _cropped(upright, box), (pts - first) * Fraction(frame.time_base or 1)


def _cropped(picture: NDArray[np.uint8], box: list[float]) -> NDArray[np.uint8]:
    """The part of a picture inside `box`; sides and corner are even, as H.264 wants them."""
    (height, width), (x, y, wide, high) = picture.shape[:2], box
    left, top = _even_up(x * width), _even_up(y * height)
    right = min(left + _even_down((x + wide) * width - left), width)
    bottom = min(top + _even_down((y + high) * height - top), height)
    if right - left < 2 or bottom - top < 2:
        raise MediaError(f"{width}x{height}: too small to be cut", "unsupported")
    return np.ascontiguousarray(picture[top:bottom, left:right])


def _even_up(length: float) -> int:
    return 2 * int(np.ceil(round(length, 3) / 2))


def _even_down(length: float) -> int:
    return 2 * int(round(length, 3) // 2)


def _write(path: Path, pictures: Iterator[tuple[NDArray[np.uint8], Fraction]]) -> float:
    """Write an MP4 with the pictures at their times; give the frames a second."""
    first = next(pictures, None)
    if first is None:
        raise MediaError("has no frames in that time")
    clock = Fraction(1, 90_000)
    times: list[float] = []
    reformatter = VideoReformatter()
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(ENCODER, rate=30, options={**_OPTIONS, "g": "24"})
        stream.height, stream.width = first[0].shape[:2]
        stream.pix_fmt, stream.time_base = "yuv420p", clock
        stream.codec_context.time_base = clock
        tag_colours(stream)
        pending: tuple[NDArray[np.uint8], Fraction] | None = first
        while pending is not None:
            picture, time = pending
            frame = to_yuv(av.VideoFrame.from_ndarray(picture, format="rgb24"), reformatter)
            frame.pts, frame.time_base = round(time / clock), clock
            container.mux(stream.encode(frame))
            times.append(float(time))
            pending = next(pictures, None)
        container.mux(stream.encode(None))
    return (len(times) - 1) / times[-1] if times[-1] > 0 else 0.0


def _checked(path: Path, kept: _Kept, fps: float) -> dict[str, Any]:
    """Read what was written: as many frames, the first and last of them those of the source."""
    assert kept.first is not None
    assert kept.last is not None
    count, first, last = 0, None, None
    with path.open("rb") as file, open_video(file) as container:
        for frame in container.decode(video=0):
            first = frame if first is None else first
            last, count = frame, count + 1
    if count != kept.count:
        raise MediaError(f"was written with {count} frames instead of {kept.count}")
    for written, wanted in ((first, kept.first), (last, kept.last)):
        assert written is not None
        if _psnr(np.asarray(written.to_ndarray(format="rgb24"), np.uint8), wanted) < _LIKE:
            raise MediaError("was written with other frames than the source's")
    height, width = kept.first.shape[:2]
    return {"frames": count, "fps": fps, "height": height, "width": width}


def _psnr(one: NDArray[np.uint8], two: NDArray[np.uint8]) -> float:
    error = float(np.square(one.astype(np.float32) - two).mean())
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def _write_picture(path: Path, picture: NDArray[np.uint8]) -> dict[str, Any]:
    Image.fromarray(picture).save(path, format="PNG")
    height, width = picture.shape[:2]
    return {"frames": 1, "fps": 0.0, "height": height, "width": width}
