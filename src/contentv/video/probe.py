"""Measures files of strangers without decoding all of them: frames, size, speed. Runs in a child.

`measure` is called through `video.sandbox.values_from_child`, many files to a child.
"""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

from contentv.base.errors import WorldError
from contentv.base.files import describe_os_error
from contentv.video.io import open_video

PICTURE_FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # Exif: values that swap height and width
# Codecs in which one packet holds one frame that is shown, so that packets can be counted.
_COUNTABLE = frozenset(["h264", "hevc", "av1", "vp9", "mpeg4", "mjpeg", "prores", "gif"])

Place = Sequence[Any]
"""Path below the root, offset and length in bytes (0: all of it), kind (video or picture)."""


def measure(root: str, places: Sequence[Place]) -> Iterator[dict[str, Any]]:
    """Yield for each place frames, fps (0 for a picture), height and width, or a fault."""
    for path, offset, length, kind in places:
        try:
            with Path(root, path).open("rb") as whole:
                file = part_of_file(whole, offset, length) if length else whole
                yield _measure_video(file) if kind == "video" else _measure_picture(file)
        except WorldError as error:
            yield {"fault": str(error)}
        except av.error.MemoryError as error:
            raise MemoryError from error
        except av.error.FFmpegError as error:
            yield {"fault": f"cannot be decoded ({error.strerror})"}
        except Image.DecompressionBombError:
            yield {"fault": "has too many pixels"}
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's ways to say: damaged
            yield {"fault": _describe(error)}


def part_of_file(whole: BinaryIO, offset: int, length: int) -> BinaryIO:
    """Give some bytes of a file as a file; WorldError when it has fewer."""
    whole.seek(offset)
    data = whole.read(length)
    if len(data) < length:
        raise WorldError("is cut short")
    return io.BytesIO(data)


def _measure_video(file: BinaryIO) -> dict[str, Any]:
    with open_video(file) as container:
        if not container.streams.video:
            raise WorldError("has no video in it")
        stream = container.streams.video[0]
        count, times, first = _count_frames(container, stream)
        if first is None or not count:
            raise WorldError("has no frames")
        if first.rotation % 360:
            raise WorldError(f"is stored turned by {first.rotation} degrees; re-encode it upright")
        span = float((max(times) - min(times)) * (stream.time_base or 0)) if times else 0.0
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        fps = (count - 1) / span if span > 0 else rate
        if not fps > 0:
            raise WorldError("does not say how many frames make a second")
        return {"frames": count, "fps": fps, "height": first.height, "width": first.width}


def _count_frames(
    container: InputContainer, stream: VideoStream
) -> tuple[int, list[int], VideoFrame | None]:
    """Number of frames, their time stamps, and the first of them, the only one that is kept."""
    count, times, first = 0, [], None
    countable = stream.codec_context.name in _COUNTABLE
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise WorldError("is cut short or corrupt")
        shown = packet.size > 0 and not packet.is_discard
        frames = packet.decode() if first is None or not countable else []
        first = first or next(iter(frames), None)
        count += shown if countable else len(frames)
        if shown and packet.pts is not None:
            times.append(packet.pts)
    return count, times, first


def _measure_picture(file: BinaryIO) -> dict[str, Any]:
    with Image.open(file, formats=PICTURE_FORMATS) as picture:
        if getattr(picture, "n_frames", 1) > 1:
            raise WorldError("is animated; store it as a video")
        width, height = picture.size
        picture.load()
        if picture.getexif().get(_ORIENTATION) in _TURNED:
            height, width = width, height
    return {"frames": 1, "fps": 0.0, "height": height, "width": width}


def _describe(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno:
        return describe_os_error(error)
    return f"cannot be decoded ({' '.join(str(error).split())})"
