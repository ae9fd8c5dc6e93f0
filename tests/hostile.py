"""Files as strangers have them: damaged, lying, oddly named. Each with what is to be said of it."""

import os
import random
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import av
import numpy as np
from PIL import Image

from contentv.base.types import Frame
from contentv.data.manifest import Kind

Verdict = Literal["ok", "partial", "corrupt", "unsupported", "unreadable"]

FPS, COUNT, SIZE = 24, 48, (160, 96)
ODD_NAMES = (
    *("new\nline.mp4", "a 'quoted' \"name\".mp4", "..up..mp4", "-dash.mp4", "$(touch x);.mp4"),
    *("cat \N{CAT FACE}.mp4", "per%cent %20.mp4", f"{'long' * 60}.mp4", "tab\tbell\a.mp4"),
)


@dataclass(frozen=True)
class Hostile:
    """A file and the status that it gets; for a failed one that is its class of error."""

    path: Path
    kind: Kind
    verdict: Verdict


def hostile_files(folder: Path) -> list[Hostile]:
    """Write every hostile file into a folder, each with other bytes than the others."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, (name, (verdict, make)) in enumerate(_FILES.items()):
        path = folder / name
        make(path, number)
        pictures = (".png", ".jpg", ".webp")
        made.append(Hostile(path, "picture" if path.suffix in pictures else "video", verdict))
    for number, name in enumerate(ODD_NAMES):
        (folder / name).write_bytes(_bytes(100 + number))
        made.append(Hostile(folder / name, "video", "ok"))
    return made


def hostile_folders(folder: Path) -> None:
    """Make loops of links, a folder named like a video, and one nobody but root may read."""
    (folder / "folder.mp4").mkdir(parents=True)
    (folder / "folder.mp4" / "inside.mp4").write_bytes(_bytes(200))
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "itself.mp4").symlink_to("itself.mp4")
    (folder / "locked").mkdir()
    (folder / "locked" / "unseen.mp4").write_bytes(_bytes(201))
    (folder / "locked").chmod(0)


def moving(seed: int, count: int = COUNT, size: tuple[int, int] = SIZE) -> list[Frame]:
    """A smooth picture that slides to the left by 1 pixel a frame."""
    rng = np.random.default_rng([seed, 13])
    small = rng.integers(30, 225, (6, 16, 3), np.uint8)
    wide = np.asarray(Image.fromarray(small).resize((size[0] + count, size[1])))
    return [wide[:, number : number + size[0]] for number in range(count)]


@dataclass(frozen=True)
class Form:
    """How frames become a file; `times` gives their time stamps, in frames."""

    codec: str = "libx264"
    pixels: str = "yuv420p"
    container: str = "mp4"
    flags: str = "+faststart"
    times: Callable[[int], int] = int
    aspect: int = 1  # how much wider than high a pixel is


def encode(path: Path, pictures: Iterable[Frame], form: Form) -> None:
    """Encode with a key frame every 8 frames."""
    flags = {"movflags": form.flags} if form.container == "mp4" else {}
    with av.open(str(path), "w", format=form.container, options=flags) as output:
        stream = output.add_stream(form.codec, rate=FPS)
        stream.pix_fmt = form.pixels
        stream.options = {"threads": "1", "g": "8"}
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if not number:
                stream.width, stream.height = frame.width, frame.height
                stream.codec_context.time_base = Fraction(1, FPS)
                stream.codec_context.sample_aspect_ratio = Fraction(form.aspect)
            frame.pts, frame.time_base = form.times(number), Fraction(1, FPS)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def _bytes(seed: int, form: Form = Form(), size: tuple[int, int] = SIZE) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder, "video")
        encode(path, moving(seed, size=size), form)
        return path.read_bytes()


def _noise(seed: int, count: int) -> bytes:
    return random.Random(seed).randbytes(count)


def _empty(path: Path, _: int) -> None:
    path.write_bytes(b"")


def _cut(part: float) -> Callable[[Path, int], None]:
    def make(path: Path, seed: int) -> None:
        whole = _bytes(seed)
        path.write_bytes(whole[: int(part * len(whole))])

    return make


def _no_moov(path: Path, seed: int) -> None:
    whole = _bytes(seed, Form(flags="use_metadata_tags"))
    path.write_bytes(whole[: whole.rindex(b"moov") - 4])


def _garbage(path: Path, seed: int) -> None:
    whole = bytearray(_bytes(seed))
    first = whole.index(b"mdat") + 4
    begin, length = first + (len(whole) - first) // 2, (len(whole) - first) // 4
    whole[begin : begin + length] = _noise(seed, length)
    path.write_bytes(whole)


def _written(
    form: Form = Form(), count: int = COUNT, size: tuple[int, int] = SIZE
) -> Callable[[Path, int], None]:
    def make(path: Path, seed: int) -> None:
        encode(path, moving(seed, count, size), form)

    return make


def _rotated(path: Path, seed: int) -> None:
    whole = bytearray(_bytes(seed))
    at = whole.index(b"tkhd") + 44
    struct.pack_into(">9i", whole, at, 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(whole)


def _header_bomb(path: Path, seed: int) -> None:
    """Says in 4 bytes that each frame is 16000 pixels wide and high."""
    _gif(path, seed)
    whole = bytearray(path.read_bytes())
    struct.pack_into("<2H", whole, 6, 16_000, 16_000)
    path.write_bytes(whole)


def _frame_bomb(path: Path, seed: int) -> None:
    """An honest header, but each frame says that it is 32000 pixels wide and high."""
    whole = bytearray(_bytes(seed, Form("mjpeg", "yuvj420p", "avi")))
    at = -1
    while (at := whole.find(b"\xff\xc0\x00\x11", at + 1)) >= 0:
        struct.pack_into(">2H", whole, at + 5, 32000, 32000)
    path.write_bytes(whole)


def _audio(path: Path, _: int) -> None:
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=44100)
        for _number in range(20):
            sound = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
            sound.sample_rate = 44100
            for plane in sound.planes:
                plane.update(bytes(plane.buffer_size))
            output.mux(stream.encode(sound))
        output.mux(stream.encode(None))


def _text(path: Path, seed: int) -> None:
    path.write_text(f"Dear diary {seed}, " * 200)


def _playlist(path: Path, _: int) -> None:
    path.write_text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n")


def _random(path: Path, seed: int) -> None:
    path.write_bytes(b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + _noise(seed, 9000))


def _joined(*sizes: tuple[int, int]) -> Callable[[Path, int], None]:
    """Two broadcast streams, one after the other in a file: time begins anew in the middle."""

    def make(path: Path, seed: int) -> None:
        form = Form(container="mpegts")
        parts = [_bytes(seed + 50 * number, form, size) for number, size in enumerate(sizes)]
        path.write_bytes(b"".join(parts))

    return make


def _gif(path: Path, seed: int) -> None:
    pictures = [Image.fromarray(frame) for frame in moving(seed, 12)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, loop=0)


def _picture_bomb(path: Path, _: int) -> None:
    Image.new("1", (20_000, 20_000)).save(path, "PNG")


def _cut_picture(path: Path, seed: int) -> None:
    buffer = BytesIO()
    Image.fromarray(moving(seed)[0]).save(buffer, "JPEG", quality=95)
    path.write_bytes(buffer.getvalue()[: buffer.tell() // 2])


def _turned_picture(path: Path, seed: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(moving(seed)[0]).save(path, "JPEG", exif=exif)


def _printed_picture(path: Path, seed: int) -> None:
    Image.fromarray(moving(seed)[0]).convert("CMYK").save(path, "JPEG")


def _deep_picture(path: Path, seed: int) -> None:
    deep = moving(seed)[0][..., 0].astype(np.uint16) * 257
    Image.fromarray(deep).save(path, "PNG")


def _disguised(path: Path, seed: int) -> None:
    path.write_bytes(_bytes(seed))


def _pipe(path: Path, _: int) -> None:
    os.mkfifo(path)


def _dangling(path: Path, _: int) -> None:
    path.symlink_to("gone.mp4")


def _uneven(number: int) -> int:
    return number + number // 3


_FILES: dict[str, tuple[Verdict, Callable[[Path, int], None]]] = {
    "empty.mp4": ("corrupt", _empty),
    "no-moov.mp4": ("corrupt", _no_moov),
    "cut-in-the-head.mp4": ("corrupt", _cut(0.02)),
    "cut-in-the-middle.mp4": ("partial", _cut(0.6)),
    "cut-near-the-end.mp4": ("partial", _cut(0.9)),
    "garbage-midstream.mp4": ("partial", _garbage),
    "text.mp4": ("corrupt", _text),
    "playlist.mp4": ("corrupt", _playlist),
    "random.mp4": ("corrupt", _random),
    "audio-only.mp4": ("unsupported", _audio),
    "header-bomb.gif": ("unsupported", _header_bomb),
    "frame-bomb.avi": ("corrupt", _frame_bomb),
    "size-changes.ts": ("unsupported", _joined(SIZE, (96, 160))),
    "time-begins-anew.ts": ("partial", _joined(SIZE, SIZE)),
    "one-frame.mp4": ("ok", _written(count=1)),
    "uneven.mp4": ("ok", _written(Form(times=_uneven))),
    "rotated.mp4": ("ok", _rotated),
    "ten-bit.mp4": ("ok", _written(Form(pixels="yuv420p10le"))),
    "odd-sides.mkv": ("ok", _written(Form("libx264", "yuv444p", "matroska"), size=(159, 95))),
    "tiny.mkv": ("ok", _written(Form("ffv1", "yuv420p", "matroska"), size=(2, 2))),
    "animated.gif": ("ok", _gif),
    "animated.webp": ("unsupported", _gif),
    "bomb.png": ("unsupported", _picture_bomb),
    "cut.jpg": ("corrupt", _cut_picture),
    "video.png": ("corrupt", _disguised),
    "turned.jpg": ("ok", _turned_picture),
    "printed.jpg": ("ok", _printed_picture),
    "deep.png": ("ok", _deep_picture),
    "pipe.mp4": ("unreadable", _pipe),
    "dangling.mp4": ("unreadable", _dangling),
}
