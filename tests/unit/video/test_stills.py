from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contentv.base.errors import MediaError
from contentv.video.io import write_video
from contentv.video.stills import stills


def brightness(path: Path, kind: str, moments: list[int]) -> list[int]:
    found = list(stills(str(path), kind, moments=moments, side=32))
    assert all(isinstance(item, tuple) and max(item[0].shape) == 32 for item in found)
    return [round(float(item[0].mean())) for item in found if isinstance(item, tuple)]


def test_moments_are_those_of_the_time_stamps(tmp_path: Path) -> None:
    path = tmp_path / "grey.mp4"
    write_video(path, (np.full((64, 64, 3), 10 * i, np.uint8) for i in range(20)), fps=25)
    tick = 12800 // 25  # what FFmpeg counts time in
    found = brightness(path, "video", [15 * tick, 3 * tick, 100 * tick])
    assert found == pytest.approx([150, 30], abs=2)


def test_a_picture_is_the_same_at_every_moment(tmp_path: Path) -> None:
    Image.new("RGB", (64, 40), (90, 90, 90)).save(tmp_path / "p.png")
    assert brightness(tmp_path / "p.png", "picture", [0, 7]) == [90, 90]


@pytest.mark.parametrize("kind", ["video", "picture"])
def test_what_cannot_be_shown_says_why(tmp_path: Path, kind: str) -> None:
    (tmp_path / "none").write_bytes(b"no video")
    for name in ("none", "absent"):
        with pytest.raises(MediaError, match="cannot be decoded"):
            brightness(tmp_path / name, kind, [0])
