import json
from pathlib import Path

import pytest

from contentv.base.errors import UserError, WorldError
from contentv.data.config import ReadConfig, RenderConfig
from contentv.data.toyclips import read, render
from contentv.video.io import read_video


@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
@pytest.mark.parametrize("index", [0, 1, 2])
def test_what_is_rendered_is_read_back(tmp_path: Path, suffix: str, index: int) -> None:
    result = render(RenderConfig(seed=4, index=index, split="seen", out=tmp_path / f"c{suffix}"))
    content = json.loads((tmp_path / "c.json").read_text())
    assert content["prompt"] == result.caption
    assert (content["seed"], content["index"], content["split"]) == (4, index, "seen")
    seen = read(ReadConfig(video=result.file))
    assert seen.asked == content["facts"]
    assert all(seen.holds.values()), str(seen)


def test_the_same_numbers_give_the_same_file(tmp_path: Path) -> None:
    for name in "ab":
        render(RenderConfig(index=7, out=tmp_path / f"{name}.mp4"))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_length_size_and_speed_are_settings(tmp_path: Path) -> None:
    render(RenderConfig(num_frames=5, scale=2, fps=4, out=tmp_path / "a.mp4"))
    clip = read_video(tmp_path / "a.mp4")
    assert clip.frames.shape == (5, 128, 128, 3)
    assert clip.fps == 4


def test_a_wrong_fact_is_told_with_what_was_asked(tmp_path: Path) -> None:
    file = render(RenderConfig(index=3, out=tmp_path / "c.mp4")).file
    facts = json.loads((tmp_path / "c.json").read_text())["facts"]
    colour = "red" if facts["colour"] != "red" else "green"
    result = read(ReadConfig(video=file, prompt=f"a {colour} {facts['shape']}"))
    assert result.holds == {"colour": False, "shape": True}
    lines = {line.split()[0]: line for line in str(result).splitlines()}
    assert lines["colour"].endswith(f"asked: {colour}")
    assert lines["shape"].endswith("as asked")
    assert "ask" not in lines["background"]


@pytest.mark.parametrize(
    "content", ['{"job": {"prompt": "a red circle"}}', '{"facts": {"colour": "red"}}', "[]", "{}"]
)
def test_the_json_file_beside_the_video_says_what_was_asked(tmp_path: Path, content: str) -> None:
    file = render(RenderConfig(out=tmp_path / "c.mp4")).file
    (tmp_path / "c.json").write_text(content)
    assert read(ReadConfig(video=file)).asked.get("colour") == ("red" if "red" in content else None)


def test_other_videos_are_refused(tmp_path: Path) -> None:
    file = render(RenderConfig(scale=1, out=tmp_path / "c.mp4")).file
    with pytest.raises(UserError, match="name a file"):
        render(RenderConfig(out=tmp_path / "folder"))
    with pytest.raises(WorldError, match="no such file"):
        read(ReadConfig(video=tmp_path / "absent.mp4"))
    assert read(ReadConfig(video=file)).seen
