"""Video files: writing frames as they come, reading files of strangers. The only user of PyAV."""

import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.reformatter import (
    ColorPrimaries,
    ColorRange,
    Colorspace,
    ColorTrc,
    VideoReformatter,
)
from av.video.stream import VideoStream

from contentv.base.errors import UserError, WorldError
from contentv.base.files import atomic_dir, atomic_path, os_errors
from contentv.base.types import Frame, Frames
from contentv.video.sandbox import frames_from_child
from contentv.video.transforms import enlarge

ENCODER: Final = "libx264"
# Constant quality 12 cannot be told from the original by eye. The number of threads is fixed
# because the bytes that x264 writes depend on it.
_MP4_OPTIONS = {"crf": "12", "preset": "medium", "threads": "4"}
_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,flv,ogg,asf"


@dataclass(frozen=True)
class Clip:
    """Frames ``[t h w 3]`` and how many of them make a second."""

    frames: Frames
    fps: float


def write_video(path: Path, frames: Iterable[Frame], *, fps: int, scale: int = 1) -> int:
    """Write frames as they arrive, each pixel as `scale` x `scale` pixels; give their number.

    The suffix decides: `.mp4` (H.264, visually lossless), `.gif`, `.png` (exactly one frame), none
    (a folder of numbered PNG files). The file appears whole or not at all, and equal frames give
    equal bytes.
    """
    with atomic_video(path) as part:
        return encode_video(part, frames, fps=fps, scale=scale)


def atomic_video(path: Path) -> AbstractContextManager[Path]:
    """Give a temporary file, or folder for PNG files, that becomes `path` if the body succeeds."""
    if path.suffix.lower() not in _WRITERS:
        raise UserError(f"{path}: use .mp4, .gif, .png, or no suffix for a folder of PNG files")
    return atomic_path(path) if path.suffix else atomic_dir(path)


def encode_video(part: Path, frames: Iterable[Frame], *, fps: int, scale: int = 1) -> int:
    """Do the work of `write_video` inside `atomic_video`, for those who add something to it."""
    try:
        return _WRITERS[part.suffix.lower()](part, _prepare(frames, scale, fps))
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):  # a full disk and the like: `atomic_video` explains those
            raise
        raise WorldError(f"cannot encode the video: {error.strerror}") from error


def read_video(
    path: Path,
    *,
    max_frames: int = 1000,
    max_pixels: int = 2**28,
    seconds: float = 120.0,
    memory: int = 4 << 30,
) -> Clip:
    """Decode a video file in a child process limited to `seconds` and `memory` bytes.

    `max_pixels` counts the pixels of all frames together. WorldError says what is wrong with a
    file: missing, no video in it, cut short, corrupt, over a limit.
    """
    with os_errors(path, "read"):
        kind = path.stat().st_mode
    if not stat.S_ISREG(kind):
        raise UserError(f"{path}: is a folder or a device; give a video file")
    try:
        arguments = {"path": str(path), "max_frames": max_frames, "max_pixels": max_pixels}
        return _collect(
            frames_from_child(
                f"{__name__}:decode",
                arguments,
                seconds=seconds,
                memory=memory,
                max_pixels=max_pixels,
            )
        )
    except WorldError as error:
        raise WorldError(f"{path}: {error}") from error


def decode(path: str, max_frames: int, max_pixels: int) -> Iterator[tuple[Frame, float]]:
    """Yield each frame ``[h w 3]`` of the first video stream with the frames per second.

    Untrusted files belong into a child process: see `read_video`.
    """
    try:
        with Path(path).open("rb") as file, open_video(file) as container:
            yield from _decode_container(container, max_frames, max_pixels)
    except av.error.MemoryError as error:
        raise MemoryError from error
    except (av.error.FFmpegError, OSError) as error:
        raise WorldError(f"cannot be decoded ({error.strerror})") from error


def open_video(file: BinaryIO, *, tolerant: bool = False) -> InputContainer:
    """Open the video in a stranger's file, which stays the caller's; FFmpegError when it is none.

    An open file instead of a name, and a list of containers without play lists: so nothing in the
    name or the file can point to the network or to another file. `tolerant` makes up missing time
    stamps and ignores damaged ones.
    """
    lenient = {"fflags": "+genpts+igndts"} if tolerant else {}
    return av.open(file, "r", options={"format_whitelist": _CONTAINERS, **lenient})


def has_encoder() -> bool:
    """Say whether this PyAV can write H.264."""
    return ENCODER in av.codecs_available


def _collect(decoded: Iterator[tuple[Frame, float]]) -> Clip:
    pairs = list(decoded)
    if not pairs:
        raise WorldError("has no frames")
    return Clip(np.stack([frame for frame, _ in pairs]), pairs[0][1])


def _decode_container(
    container: InputContainer, max_frames: int, max_pixels: int
) -> Iterator[tuple[Frame, float]]:
    if not container.streams.video:
        raise WorldError("has no video in it")
    stream = container.streams.video[0]
    fps = float(stream.average_rate or stream.guessed_rate or 0)
    size = (stream.width, stream.height)
    reformatter = VideoReformatter()
    count = pixels = 0
    if stream.width * stream.height > max_pixels:
        raise WorldError(f"one frame is {size[0]}x{size[1]}, more than {max_pixels} pixels")
    for packet in container.demux(stream):
        if packet.is_corrupt:
            raise WorldError("is cut short or corrupt")
        for frame in packet.decode():
            count, pixels = count + 1, pixels + frame.width * frame.height
            if count > max_frames:
                raise WorldError(f"has more than {max_frames} frames")
            if pixels > max_pixels:
                raise WorldError(f"has more than {max_pixels} pixels")
            if (frame.width, frame.height) != size:
                raise WorldError("changes its size midway")
            yield to_rgb(frame, reformatter), fps


def _prepare(frames: Iterable[Frame], scale: int, fps: int) -> Iterator[av.VideoFrame]:
    size = None
    for index, small in enumerate(frames):
        frame = np.ascontiguousarray(enlarge(small, scale))
        size = size or frame.shape
        if frame.shape != size:
            raise ValueError(f"frame {index} is {frame.shape}, the first one {size}")
        video_frame = av.VideoFrame.from_ndarray(frame, format="rgb24")
        video_frame.pts, video_frame.time_base = index, Fraction(1, fps)
        yield video_frame
    if size is None:
        raise ValueError("a video needs at least one frame")


def _write_mp4(path: Path, frames: Iterator[av.VideoFrame]) -> int:
    if not has_encoder():
        raise WorldError(f"this PyAV has no {ENCODER}: `pip install --force-reinstall av`, or .gif")
    first = next(frames)
    if first.width % 2 or first.height % 2:
        raise UserError(
            f"{first.height}x{first.width}: H.264 needs even sides; use .gif or scale 2"
        )
    with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream(ENCODER, rate=_rate(first), options=_MP4_OPTIONS)
        tag_colours(stream)
        reformatter = VideoReformatter()
        shown = (to_yuv(frame, reformatter) for frame in chain([first], frames))
        return _encode(container, stream, "yuv420p", shown)


def _write_gif(path: Path, frames: Iterator[av.VideoFrame]) -> int:
    first = next(frames)
    with av.open(str(path), "w", format="gif") as container:
        stream = container.add_stream("gif", rate=_rate(first))
        return _encode(container, stream, "pal8", _to_palettes(chain([first], frames)))


def _write_png(path: Path, frames: Iterator[av.VideoFrame]) -> int:
    path.write_bytes(_png(next(frames)))
    if next(frames, None) is not None:
        raise UserError("one .png file holds one frame; use a folder, .mp4 or .gif")
    return 1


def _write_folder(path: Path, frames: Iterator[av.VideoFrame]) -> int:
    index = -1
    for index, frame in enumerate(frames):
        (path / f"frame_{index:05d}.png").write_bytes(_png(frame))
    return index + 1


_WRITERS: dict[str, Callable[[Path, Iterator[av.VideoFrame]], int]] = {
    ".mp4": _write_mp4,
    ".gif": _write_gif,
    ".png": _write_png,
    "": _write_folder,
}


def _encode(
    container: OutputContainer,
    stream: VideoStream,
    pixel_format: str,
    frames: Iterator[av.VideoFrame],
) -> int:
    first = next(frames)
    stream.width, stream.height, stream.pix_fmt = first.width, first.height, pixel_format
    count = 0
    for frame in chain([first], frames):
        container.mux(stream.encode(frame))
        count += 1
    container.mux(stream.encode(None))
    return count


def _rate(frame: av.VideoFrame) -> Fraction:
    assert frame.time_base is not None
    return 1 / frame.time_base


def tag_colours(stream: VideoStream) -> None:
    """Say in the file what `to_yuv` makes, so that players need not guess."""
    colors = stream.codec_context
    colors.color_range, colors.colorspace = ColorRange.MPEG, Colorspace.ITU709
    colors.color_primaries, colors.color_trc = ColorPrimaries.BT709, ColorTrc.BT709


def to_yuv(frame: VideoFrame, reformatter: VideoReformatter) -> VideoFrame:
    """RGB to what H.264 encodes; `reformatter` as in `to_rgb`."""
    return reformatter.reformat(
        frame, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
    )


def to_rgb(frame: VideoFrame, reformatter: VideoReformatter) -> Frame:
    """Bytes ``[h w 3]`` of a decoded frame.

    One `reformatter` for all frames of a video: setting it up costs more than converting a small
    frame does, and PyAV's `VideoFrame.to_ndarray(format=...)` does that for each frame.
    """
    return np.asarray(reformatter.reformat(frame, format="rgb24").to_ndarray(), np.uint8)


def _to_palettes(frames: Iterable[av.VideoFrame]) -> Iterator[av.VideoFrame]:
    # Each frame gets its own 256 colours, so that nothing waits for the end of the video.
    graph = None
    for frame in frames:
        graph = graph or _palette_graph(frame)
        graph.vpush(frame)
        result = graph.vpull()
        result.pts, result.time_base = frame.pts, frame.time_base
        yield result


def _palette_graph(frame: av.VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base
    )
    split, sink = graph.add("split"), graph.add("buffersink")
    palette = graph.add("palettegen", "stats_mode=single")
    use = graph.add("paletteuse", "new=1:dither=bayer:bayer_scale=5")
    source.link_to(split)
    split.link_to(use, 0, 0)
    split.link_to(palette, 1, 0)
    palette.link_to(use, 0, 1)
    use.link_to(sink)
    graph.configure()
    return graph


def _png(frame: av.VideoFrame) -> bytes:
    codec = av.CodecContext.create("png", "w")
    codec.width, codec.height, codec.pix_fmt = frame.width, frame.height, "rgb24"
    codec.time_base = Fraction(1)
    return b"".join(bytes(packet) for packet in [*codec.encode(frame), *codec.encode(None)])
