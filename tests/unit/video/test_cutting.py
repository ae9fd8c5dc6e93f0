from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from contentv.base.errors import MediaError
from contentv.video.cutting import cut_clip, cut_frame, cut_picture
from contentv.video.io import read_video

WHOLE = [0.0, 0.0, 1.0, 1.0]


def numbered(path: Path, count: int = 60, *, times: list[int] | None = None) -> Path:
    """A video of 25 frames a second and one key frame; each picture shows its number in bits."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", "g": "1000"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 25)
        for i in range(count):
            bits = np.repeat([i >> bit & 1 for bit in range(6)], 16).astype(np.uint8)
            picture = np.broadcast_to(200 * bits[None, :, None], (64, 96, 3))
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = (times[i] if times else i), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def stamps(path: Path) -> list[int]:
    with av.open(str(path)) as container:
        return sorted(packet.pts for packet in container.demux(video=0) if packet.pts is not None)


def cut(source: Path, out: Path, first: int, end: int, box: list[float]) -> dict[str, Any]:
    """Frames `first` to `end` of the source."""
    times = [*stamps(source), stamps(source)[-1] + 1]
    (found,) = cut_clip(
        str(source), str(out), start_pts=times[first], end_pts=times[end], most=999, box=box
    )
    return found


def numbers(path: Path) -> list[int]:
    """What the frames in a file show."""
    bits = read_video(path).frames[:, 32, 8::16].mean(-1) > 100
    return [int(sum(1 << i for i, bit in enumerate(row) if bit)) for row in bits]


@pytest.mark.parametrize(("first", "end"), [(0, 10), (7, 8), (13, 50), (50, 60)])
def test_exactly_the_frames_between_two_times_are_kept(
    tmp_path: Path, first: int, end: int
) -> None:
    source, out = numbered(tmp_path / "a.mp4"), tmp_path / "out.mp4"
    found = cut(source, out, first, end, WHOLE)
    assert numbers(out) == list(range(first, end))
    assert found["frames"] == end - first
    assert found["fps"] == pytest.approx(25 if end - first > 1 else 0)


def test_a_crop_is_the_part_of_the_picture_on_even_pixels(tmp_path: Path) -> None:
    source, out = numbered(tmp_path / "a.mp4"), tmp_path / "out.mp4"
    found = cut(source, out, 20, 25, [0.51, 0.1, 0.43, 0.85])
    assert (found["width"] % 2, found["height"] % 2) == (0, 0)
    frames = read_video(out).frames
    assert frames.shape[1:3] == (found["height"], found["width"])
    assert 0.43 * 96 - 4 <= found["width"] <= 0.43 * 96
    left, top = 50, 8  # .51 x 96 and .1 x 64, on even pixels
    wanted = read_video(source).frames[20][top:, left:][: frames.shape[1], : frames.shape[2]]
    assert np.abs(frames[0].astype(int) - wanted).mean() < 3


def test_uneven_times_stay_as_they_are(tmp_path: Path) -> None:
    times = [i + (i >= 10) * 5 for i in range(20)]
    source, out = numbered(tmp_path / "a.mp4", 20, times=times), tmp_path / "out.mp4"
    cut(source, out, 5, 15, WHOLE)
    with av.open(str(out)) as container:
        seconds = [float(frame.time or 0) for frame in container.decode(video=0)]
    assert np.diff(seconds) == pytest.approx([0.04] * 4 + [0.24] + [0.04] * 4, abs=1e-3)


def test_a_clip_begins_anew_every_second(tmp_path: Path) -> None:
    """A loader that jumps into the file finds a key frame near."""
    source, out = numbered(tmp_path / "a.mp4"), tmp_path / "out.mp4"
    cut(source, out, 0, 60, WHOLE)
    with av.open(str(out)) as container:
        keys = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
    assert keys[0]
    assert max(np.diff([i for i, key in enumerate(keys) if key])) <= 25


def test_nothing_in_that_time_is_an_error(tmp_path: Path) -> None:
    source = numbered(tmp_path / "a.mp4", 10)
    with pytest.raises(MediaError, match="no frames in that time"):
        list(
            cut_clip(str(source), str(tmp_path / "b.mp4"), start_pts=10**9, end_pts=2 * 10**9,
                     most=9, box=WHOLE)
        )  # fmt: skip


def test_what_is_no_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(MediaError, match="cannot be cut"):
        list(
            cut_clip(str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), start_pts=0, end_pts=9,
                     most=9, box=WHOLE)
        )  # fmt: skip


def test_one_frame_becomes_a_picture(tmp_path: Path) -> None:
    source, out = numbered(tmp_path / "a.mp4"), tmp_path / "out.png"
    (found,) = cut_frame(str(source), str(out), pts=stamps(source)[30], box=WHOLE)
    assert found == {"frames": 1, "fps": 0.0, "height": 64, "width": 96}
    wanted = read_video(source).frames[30]
    assert np.abs(np.asarray(Image.open(out)).astype(int) - wanted).mean() < 2


def test_a_picture_is_turned_upright_and_cut(tmp_path: Path) -> None:
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:, :30] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    (found,) = cut_picture(str(tmp_path / "a.jpg"), str(tmp_path / "b.png"), box=[0, 0, 1, 0.5])
    assert (found["height"], found["width"]) == (30, 40)
    assert np.asarray(Image.open(tmp_path / "b.png")).mean() > 240
