"""Shows a stranger's file once, from the first frame to the last, in the sizes curation reads.

`watch` runs in a child process: see `video.sandbox.arrays_from_child`.
"""

import math
from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from PIL import Image, UnidentifiedImageError

from contentv.base.errors import MediaError
from contentv.video.io import open_video
from contentv.video.pictures import upright_rgb
from contentv.video.probe import PICTURE_FORMATS
from contentv.video.sandbox import Item
from contentv.video.timing import in_order

THUMB = (27, 48)
"""Height and width of a thumbnail, whatever the video's are: what shot detectors read."""
LUMA_SIDE = 256
SAMPLE_SIDE = 480
LUMA_RATE = 8
SAMPLE_RATE = 1
_RESIZE = "AREA"


def watch(path: str, kind: str, *, max_pixels: int, tolerant: bool) -> Iterator[Item]:
    """Yield facts of a video or picture, then what is to be seen in it, then a summary.

    Facts and summary are dicts under those names. Pictures come upright, with square pixels, in
    the order of time, each with `stream`, `time` (seconds after the first frame) and `pts`:

    * `thumbs`: every frame, ``[27 48 3]`` RGB;
    * `luma`: 8 a second, ``[h w]`` grey, the long side 256;
    * `samples`: one a second, from half a second on, ``[h w 3]`` RGB, the short side 480.

    Nothing is enlarged but a thumbnail. A frame of more than `max_pixels` is refused. `tolerant`
    also shows what a demuxer holds for damaged. MediaError says why nothing can be seen.
    """
    try:
        with Path(path).open("rb") as file:
            yield from _video(file, max_pixels, tolerant) if kind == "video" else _picture(file)
    except av.error.MemoryError as error:
        raise MemoryError from error
    except Image.DecompressionBombError as error:
        raise MediaError("has too many pixels", "unsupported") from error
    except UnidentifiedImageError as error:
        raise MediaError(f"is no picture of a known kind ({', '.join(PICTURE_FORMATS)})") from error
    except (av.error.FFmpegError, OSError, SyntaxError, ValueError) as error:
        # Without the path that str(error) may hold: equal bytes have equal rows wherever they lie.
        said = getattr(error, "strerror", None) or str(error)
        raise MediaError(f"cannot be decoded ({' '.join(said.split())})") from error


def _picture(file: BinaryIO) -> Iterator[Item]:
    with Image.open(file, formats=PICTURE_FORMATS) as picture:
        if getattr(picture, "n_frames", 1) > 1:
            raise MediaError("is animated; store it as a video", "unsupported")
        container = str(picture.format).lower()
        upright = upright_rgb(picture)
    facts = {"width": upright.width, "height": upright.height, "container": container}
    yield {"facts": {**_NO_VIDEO, **facts}}
    width, height = _limited(*upright.size, SAMPLE_SIDE, min(upright.size))
    sample = upright.resize((width, height), Image.Resampling.BOX)
    yield np.asarray(sample, np.uint8), {"stream": "samples", "time": 0.0, "pts": 0}
    yield {"summary": {"frames": 1, "duration": 0.0, "errors": 0, "vfr": False}}


_NO_VIDEO = {
    "codec": "", "fps": 0.0, "rotation": 0, "sar": 1.0, "bit_depth": 8, "interlaced": False,
    "hdr": False, "time_base": "1", "first_pts": 0,
}  # fmt: skip


def _video(file: BinaryIO, max_pixels: int, tolerant: bool) -> Iterator[Item]:
    with open_video(file, tolerant=tolerant) as container:
        if not container.streams.video:
            cause = "unsupported" if container.streams.audio else "corrupt"
            raise MediaError("has no video in it", cause)
        stream = container.streams.video[0]
        if stream.width * stream.height > max_pixels:
            size = f"{stream.width}x{stream.height}"
            raise MediaError(f"is {size}, more than {max_pixels} pixels a frame", "unsupported")
        stream.thread_count = 1
        yield from _View(container, stream).items(tolerant=tolerant)


class _View:
    """One way through a video: keeps what the next frame needs to know of those before."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self.container, self.stream = container, stream
        self.times: list[float] = []
        self.errors = 0
        # One for each kind of picture: setting one up costs more than a small picture does.
        self.reformatters: defaultdict[tuple[Any, str], VideoReformatter]
        self.reformatters = defaultdict(VideoReformatter)

    def items(self, *, tolerant: bool) -> Iterator[Item]:
        luma = samples = 0
        last: tuple[VideoFrame, dict[str, Any]] | None = None
        for frame, pts in in_order(self._frames(tolerant=tolerant)):
            if not self.times:
                yield {"facts": self._facts(frame, pts)}
                self._begin(frame, pts)
            time = float((pts - self.first) * self.base)
            if self.times and time <= self.times[-1]:
                self.errors += 1  # time runs backwards: a splice, or a damaged header
                continue
            self.times.append(time)
            last = frame, {"time": time, "pts": pts}
            yield self._shown(frame, self.thumb, "rgb24"), {"stream": "thumbs", **last[1]}
            if time >= luma / LUMA_RATE - _HALF_A_FRAME:
                luma = math.floor((time + _HALF_A_FRAME) * LUMA_RATE) + 1
                yield self._shown(frame, self.luma, "gray"), {"stream": "luma", **last[1]}
            if time >= (samples + 0.5) / SAMPLE_RATE - _HALF_A_FRAME:
                samples = math.floor((time + _HALF_A_FRAME) * SAMPLE_RATE + 0.5)
                yield self._shown(frame, self.sample, "rgb24"), {"stream": "samples", **last[1]}
        if last is None:
            raise MediaError("has no frames")
        if not samples:
            yield self._shown(last[0], self.sample, "rgb24"), {"stream": "samples", **last[1]}
        yield {"summary": self._summary()}

    def _frames(self, *, tolerant: bool) -> Iterator[VideoFrame]:
        size = None
        for packet in self._packets():
            self.errors += packet.is_corrupt and not tolerant
            try:
                decoded = packet.decode()
            except av.error.MemoryError:
                raise
            except av.error.FFmpegError:
                self.errors += 1
                continue
            for frame in decoded:
                size = size or (frame.width, frame.height)
                if (frame.width, frame.height) != size:
                    raise MediaError("changes its size midway", "unsupported")
                yield frame

    def _packets(self) -> "Iterator[Packet[VideoStream]]":
        """What the demuxer gives until it fails; with nothing seen before, that is the video's."""
        try:
            yield from self.container.demux(self.stream)
        except av.error.FFmpegError:
            self.errors += 1
            if not self.times:
                raise

    def _begin(self, frame: VideoFrame, pts: int) -> None:
        self.first, self.base = pts, Fraction(frame.time_base or 1)
        self.turns = round(frame.rotation / 90) % 4
        width, height = _upright(frame, self.stream)
        self.thumb = THUMB[1], THUMB[0]
        self.luma = _limited(width, height, LUMA_SIDE, max(width, height))
        self.sample = _limited(width, height, SAMPLE_SIDE, min(width, height))

    def _shown(self, frame: VideoFrame, size: tuple[int, int], pixels: str) -> np.ndarray[Any, Any]:
        width, height = size if self.turns % 2 == 0 else size[::-1]
        picture = self.reformatters[size, pixels].reformat(
            frame, width=width, height=height, format=pixels, interpolation=_RESIZE
        )
        array = np.asarray(picture.to_ndarray(), np.uint8)
        return np.ascontiguousarray(np.rot90(array, self.turns))

    def _facts(self, frame: VideoFrame, pts: int) -> dict[str, Any]:
        width, height = _upright(frame, self.stream)
        context = self.stream.codec_context
        rate = self.stream.average_rate or self.stream.guessed_rate or 0
        return {
            "container": self.container.format.name,
            "codec": context.name,
            "width": width,
            "height": height,
            "fps": float(rate),
            "rotation": round(frame.rotation) % 360,
            "sar": float(self.stream.sample_aspect_ratio or 1),
            "bit_depth": max(component.bits for component in frame.format.components),
            "interlaced": bool(frame.interlaced_frame),
            "hdr": int(frame.color_trc) in _HDR,
            "time_base": str(Fraction(frame.time_base or 1)),
            "first_pts": pts,
        }

    def _summary(self) -> dict[str, Any]:
        steps = np.diff(self.times)
        usual = float(median(steps)) if len(steps) else 0.0
        return {
            "frames": len(self.times),
            "duration": self.times[-1] + usual,
            "errors": self.errors,
            "vfr": bool(len(steps) and steps.max() > _UNEVEN * usual),
        }


_HALF_A_FRAME = 0.004  # seconds: time stamps are rounded
_UNEVEN = 1.5
_HDR = (16, 18)  # transfer functions PQ and HLG


def _upright(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height as shown: square pixels, turned as the file says."""
    wide = round(frame.width * float(stream.sample_aspect_ratio or 1))
    return (frame.height, wide) if round(frame.rotation / 90) % 2 else (wide, frame.height)


def _limited(width: int, height: int, side: int, measured: int) -> tuple[int, int]:
    """Scale both sides by `side` over `measured`, which is one of them; nothing is enlarged."""
    scale = min(1.0, side / measured)
    return max(1, round(width * scale)), max(1, round(height * scale))
