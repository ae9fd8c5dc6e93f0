"""From raw footage to a trained step by commands: measured, chosen, cut, captioned, encoded."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captioners import Reply, chat_server, completion
from chains import chain, prepare, words
from composites import Plan, composite
from contentv.cli import main
from contentv.data.buckets import BucketConfig, Buckets, Fit
from contentv.data.manifest import MANIFEST_NAME, Clip, read_manifest
from contentv.toyworld.captions import parse
from contentv.toyworld.dataset import sample
from contentv.video.io import read_video, write_video
from footage import real_files, takes

POLICY = """
name: lenient
rules:
  - {rule: status, column: video_status, one_of: [ok, partial]}
  - {rule: duration, column: duration, min: 2.5, max: 6.5, kind: video}
  - {rule: duplicate, column: dup_of, equals: "", missing: pass}
  - {rule: text, column: crop_fault, equals: ""}
bucket: {areas: [4096], frames: [1, 5], fps: 8, max_crop: 0.6}
"""
LONG = (
    "A man on a bicycle rides along a gravel path between high trees, turns his head towards the "
    "camera and goes on until he is out of sight while leaves move in a light wind"
)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real footage, a composite with transitions, the toy world, a picture and a broken file."""
    folder = prepare(tmp_path_factory.mktemp("curation"))
    raw = folder / "raw"
    raw.mkdir()
    files = real_files()
    shutil.copy(files["bikes"], raw / "bikes.mp4")
    shutil.copy(files["bigbuckbunny"], raw / "bunny.mp4")
    shutil.copy(files["bigbuckbunny"], raw / "the same again.mp4")
    plan = Plan(shots=3, kinds=("cut", "dissolve"), lengths=(100, 110))
    composite(raw / "composite.mp4", 7, takes(files), plan)
    write_video(raw / "toy.mp4", sample(3, 1).frames(33), fps=8, scale=4)
    Image.fromarray(sample(3, 2).frames(1, 256)[0]).save(raw / "picture.png")
    (raw / "broken.mp4").write_bytes(b"not a video at all")
    (folder / "policy.yaml").write_text(POLICY)
    return folder


def describe(_: int, body: dict[str, Any]) -> Reply:
    return completion(LONG if body["max_tokens"] > 80 else "A man rides a bicycle past some trees")


def curate(work: Path, *more: str) -> int:
    asked = ["--out", str(work / "catalogue"), "--policy", str(work / "policy.yaml")]
    clips = ["--clips", str(work / "clips"), "--workers", "2"]
    return main(["curate", "run", str(work / "raw"), *asked, *clips, *more])


def clips_of(work: Path) -> list[Clip]:
    return read_manifest(work / "clips" / MANIFEST_NAME)


def test_one_command_makes_captioned_clips_and_again_makes_nothing_new(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with chat_server(describe) as server:
        assert curate(work, "--captioner", server.url) == 0
        said = capsys.readouterr().out
        assert "failed" in said
        clips = clips_of(work)
        assert len(server.asked) == 2 * len(clips)
        before = {path: path.stat().st_mtime_ns for path in (work / "clips").rglob("*.*4")}
        assert curate(work, "--captioner", server.url) == 0
        assert len(server.asked) == 2 * len(clips), "captions were asked for again"
    assert before == {path: path.stat().st_mtime_ns for path in (work / "clips").rglob("*.*4")}
    assert {clip.kind for clip in clips} == {"video", "picture"}
    assert all(clip.short and clip.long and not clip.fault for clip in clips)
    events = (work / "catalogue" / "events.jsonl").read_text().splitlines()
    visits = [event for event in map(json.loads, events) if event["event"] == "visit"]
    assert len(visits) == 6, "equal files are one video, and none is visited twice"
    assert sorted(event["status"] for event in visits) == ["failed", *["ok"] * 5]


def test_a_clip_is_its_source_to_the_frame_and_of_its_buckets_shape(work: Path) -> None:
    buckets = Buckets(BucketConfig(areas=(4096,), frames=(1, 5), fps=8, max_crop=0.05))
    clips = clips_of(work)
    assert all(isinstance(buckets.fit(clip.size), Fit) for clip in clips), "no more to crop"
    source = read_video(work / "raw" / "bunny.mp4").frames
    (bunny,) = [clip for clip in clips if clip.kind == "video" and clip.height == 720]
    shown = read_video(work / "clips" / bunny.path).frames.astype(int)
    left = (1280 - bunny.width) // 4 * 2
    middle = source[:, ::8, left : left + bunny.width : 8].astype(int)
    errors = np.abs(middle - shown[0, ::8, ::8]).mean((1, 2, 3))
    start = int(errors.argmin())
    for number, frame in enumerate(shown):
        assert np.abs(middle[start + number] - frame[::8, ::8]).mean() < 4


def test_every_clip_can_be_explained_and_reported(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--catalogue", str(work / "catalogue"), "--policy", str(work / "policy.yaml")]
    for clip in clips_of(work):
        assert main(["curate", "explain", clip.id, *where]) == 0
        assert "kept" in capsys.readouterr().out
    assert main(["curate", "funnel", *where]) == 0
    assert "status" in capsys.readouterr().out
    assert main(["curate", "report", *where, "--out", str(work / "report.html")]) == 0
    assert "<html" in (work / "report.html").read_text()


def test_the_clips_are_encoded_and_trained_on(
    work: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, clips = str(work / "model"), str(work / "clips")
    what = ["--clips", clips, "--model", model, "--device", "cpu", "--out", str(work / "features")]
    assert main(["encode", *what, "--areas", "4096", "--frames", "1", "5", "--fps", "8"]) == 0
    said = capsys.readouterr().out
    assert f"{len(clips_of(work))} clips" in said
    asked = {"data": clips, "stage": "stage1", "init_from": model, "features": [work / "features"]}
    assert main(["train", "contentv_8b", *words(chain(work, "run", **asked))]) == 0
    log = (work / "run" / "stage1" / "log.jsonl").read_text().splitlines()
    losses = [report["loss"] for report in map(json.loads, log) if "loss" in report]
    assert len(losses) == 2
    assert all(0 < loss < 10 for loss in losses)


def test_toy_footage_is_captioned_by_the_oracle(work: Path, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    shutil.copy(work / "raw" / "toy.mp4", raw)
    policy = "name: all\nkind: video\n"
    (tmp_path / "policy.yaml").write_text(policy)
    asked = ["--out", str(tmp_path / "catalogue"), "--policy", str(tmp_path / "policy.yaml")]
    clips = ["--clips", str(tmp_path / "clips"), "--captioner", "oracle"]
    assert main(["curate", "run", str(raw), *asked, *clips]) == 0
    found = clips_of(tmp_path)
    assert found
    truth = sample(3, 1).scene.facts
    for clip in found:
        said = parse(clip.short.lower())
        assert said["shape"] == truth["shape"]
        assert said["colour"] == truth["colour"]
        assert clip.captioner == "toyworld-oracle"
