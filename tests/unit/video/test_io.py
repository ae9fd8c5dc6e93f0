import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from contentv.base.errors import UserError, WorldError
from contentv.base.types import Frame, Frames
from contentv.video.io import read_video, to_rgb, write_video
from contentv.video.transforms import reduce


def moving_square(count: int = 9, side: int = 64) -> Frames:
    frames = np.full((count, side, side, 3), (226, 226, 222), np.uint8)
    for index in range(count):
        frames[index, 20:40, 2 * index : 2 * index + 20] = (215, 35, 45)
    return frames


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_video(path, moving_square(), fps=8, scale=4)
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_what_is_written_can_be_read_back(tmp_path: Path, suffix: str) -> None:
    frames, path = moving_square(), tmp_path / f"clip{suffix}"
    assert write_video(path, iter(frames), fps=8, scale=4) == len(frames)
    clip = read_video(path)
    assert clip.frames.shape == (9, 256, 256, 3)
    assert clip.fps == pytest.approx(8, rel=0.05)
    difference = np.abs(reduce(clip.frames, 4).astype(int) - frames)
    assert difference.mean() < 1.5
    assert difference.max() < 24


def test_mp4_is_what_browsers_play(clip: Path) -> None:
    probe = subprocess.run(
        [sys.executable, "-c", _PROBE, str(clip)], capture_output=True, text=True, check=True
    )
    assert probe.stdout.split() == ["h264", "yuv420p", "8"]
    head = clip.read_bytes()[:64]
    assert b"moov" in clip.read_bytes()[: clip.read_bytes().index(b"mdat")]  # plays while it loads
    assert b"ftyp" in head


_PROBE = """
import av, sys
with av.open(sys.argv[1]) as container:
    stream = container.streams.video[0]
    print(stream.codec_context.name, stream.pix_fmt, stream.average_rate)
"""


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_equal_frames_give_equal_bytes(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        write_video(path, moving_square(), fps=8)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_converter_for_a_whole_video_gives_what_one_for_each_frame_does(tmp_path: Path) -> None:
    converter = VideoReformatter()
    for side in (64, 96, 64):  # whatever it converted before
        path = tmp_path / f"{side}.mp4"
        write_video(path, moving_square(side=side), fps=8)
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                expected = frame.to_ndarray(format="rgb24")
                np.testing.assert_array_equal(to_rgb(frame, converter), expected)


def test_a_path_without_suffix_is_a_folder_of_exact_pictures(tmp_path: Path) -> None:
    frames = moving_square(3)
    write_video(tmp_path / "frames", frames, fps=8, scale=2)
    files = sorted((tmp_path / "frames").iterdir())
    assert [file.name for file in files] == [f"frame_0000{i}.png" for i in range(3)]
    assert np.array_equal(reduce(_picture(files[2]), 2), frames[2])


def _picture(file: Path) -> Frame:
    from PIL import Image

    return np.asarray(Image.open(file))


def test_a_png_is_one_frame(tmp_path: Path) -> None:
    write_video(tmp_path / "one.png", moving_square(1), fps=8)
    assert np.array_equal(_picture(tmp_path / "one.png"), moving_square(1)[0])
    with pytest.raises(UserError, match="one frame"):
        write_video(tmp_path / "two.png", moving_square(2), fps=8)
    assert not (tmp_path / "two.png").exists()


def test_odd_sides_are_for_gif_not_for_h264(tmp_path: Path) -> None:
    odd = moving_square(2, side=65)
    with pytest.raises(UserError, match=r"65x65: H\.264 needs even sides"):
        write_video(tmp_path / "x.mp4", odd, fps=8)
    write_video(tmp_path / "x.gif", odd, fps=8)
    assert read_video(tmp_path / "x.gif").frames.shape == (2, 65, 65, 3)


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"use \.mp4"):
        write_video(tmp_path / "x.avi", moving_square(), fps=8)


@pytest.mark.parametrize("name", ["x.mp4", "x.gif", "x"])
def test_a_failure_while_writing_leaves_nothing(tmp_path: Path, name: str) -> None:
    def broken() -> Iterator[Frame]:
        yield from moving_square(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / name, broken(), fps=8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.mp4", "x.gif", "x"])
def test_no_frames_are_no_video(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / name, [], fps=8)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x.mp4", "x.gif", "x"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    # A limit on file sizes fails in the same places as a full disk, without being root.
    result = subprocess.run(
        [sys.executable, "-c", _FULL, str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout.startswith(f"WorldError: cannot write {tmp_path / name}: "), result.stderr
    assert result.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


_FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from contentv.base.errors import WorldError
from contentv.video.io import write_video
noise = np.random.default_rng(0).integers(0, 256, (9, 64, 64, 3), np.uint8)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    write_video(Path(sys.argv[1]), noise, fps=8)
except WorldError as error:
    print(f"WorldError: {error}")
"""


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.95])
def test_a_cut_file_is_said_to_be_cut(clip: Path, tmp_path: Path, kept: float) -> None:
    data = clip.read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(data[: int(kept * len(data)) if kept < 1 else int(kept)])
    with pytest.raises(WorldError, match=r"cut\.mp4: (is cut|cannot be decoded|has no)") as caught:
        read_video(cut)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(4))
def test_noise_in_the_middle_is_noticed_or_harmless(clip: Path, tmp_path: Path, seed: int) -> None:
    data = bytearray(clip.read_bytes())
    middle = data.index(b"mdat") + 200
    data[middle : middle + 300] = np.random.default_rng(seed).bytes(300)
    (tmp_path / "bad.mp4").write_bytes(data)
    assert attempt(tmp_path / "bad.mp4") in ("read", "refused")


def attempt(path: Path) -> str:
    try:
        read_video(path)
    except WorldError:
        return "refused"
    return "read"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello, this is no video at all",
        b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
        b"v=0\r\nm=video 5004 RTP/AVP 96\r\nc=IN IP4 127.0.0.1\r\n",
    ],
)
def test_text_and_play_lists_are_no_videos(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(WorldError, match="cannot be decoded"):
        read_video(tmp_path / "x.mp4")


def test_a_sound_file_has_no_video(tmp_path: Path) -> None:
    import wave

    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    with pytest.raises(WorldError, match=r"cannot be decoded|has no video"):
        read_video(tmp_path / "x.wav")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="no such file"):
        read_video(tmp_path / "absent.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")  # opening it would wait for ever
    for path in (tmp_path, tmp_path / "pipe.mp4", Path("/dev/zero")):
        with pytest.raises(UserError, match="is a folder or a device"):
            read_video(path)


def test_limits_on_frames_and_pixels_hold(clip: Path) -> None:
    assert len(read_video(clip, max_frames=9).frames) == 9
    with pytest.raises(WorldError, match="more than 8 frames"):
        read_video(clip, max_frames=8)
    with pytest.raises(WorldError, match="more than 131072 pixels"):
        read_video(clip, max_pixels=2 * 256 * 256)
    with pytest.raises(WorldError, match="one frame is 256x256, more than 1000 pixels"):
        read_video(clip, max_pixels=1000)


def test_a_picture_bomb_is_stopped_before_it_unfolds(tmp_path: Path) -> None:
    # 16,000 x 16,000 black pixels are 768 MB decoded and a few kB as a GIF.
    _write_gif_bomb(tmp_path / "bomb.gif", 16_000)
    assert (tmp_path / "bomb.gif").stat().st_size < 10_000
    with pytest.raises(WorldError, match="bomb"):
        read_video(tmp_path / "bomb.gif", max_pixels=2**24)
    with pytest.raises(WorldError, match=r"needs more than|died|cannot be decoded"):
        read_video(tmp_path / "bomb.gif", max_pixels=2**40, memory=500 << 20)


def _write_gif_bomb(path: Path, side: int) -> None:
    size = side.to_bytes(2, "little")
    head = b"GIF89a" + size + size + b"\x80\x00\x00" + bytes(6)
    frame = b"\x2c" + bytes(4) + size + size + b"\x00\x02\x02\x4c\x01\x00"
    path.write_bytes(head + frame + b"\x3b")


def test_too_slow_is_too_slow(clip: Path) -> None:
    with pytest.raises(WorldError, match=r"took longer than 0\.01 s"):
        read_video(clip, seconds=0.01)
