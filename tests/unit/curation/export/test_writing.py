import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from catalogues import write_catalogue
from contentv.base.errors import UserError
from contentv.curation.engine.scan import uri_of
from contentv.curation.export import pack, writing
from contentv.curation.export.writing import ExportResult, shaped
from contentv.curation.products import ExportConfig, PackConfig
from contentv.curation.selection import select
from contentv.curation.selection.questions import SelectConfig
from contentv.curation.step import Box
from contentv.data.buckets import BucketConfig, Buckets, Fit
from contentv.data.layouts import read_dataset
from contentv.data.manifest import MANIFEST_NAME, Clip, read_manifest, write_manifest
from contentv.data.media import read_clip
from contentv.data.plan import Draw
from contentv.toyworld.dataset import sample
from contentv.video.io import read_video, write_video

FPS, FRAMES = 8, 48
MIDDLE = Draw(0.0, 0.5, 0.5, 0.0, (0.0, 0.0, 0.0))
VIDEO: dict[str, Any] = {
    "time_base": "1/16384", "rotation": 0, "sar": 1.0, "vfr": False, "frames": FRAMES,
    "duration": FRAMES / FPS, "fps": float(FPS), "width": 128, "height": 128,
}  # fmt: skip
TICKS = 16384 // FPS


def span(name: str, first: int, end: int, **more: object) -> dict[str, Any]:
    """A clip of frames `first` to `end` of the video."""
    return {
        "clip_id": name, "video_id": "v0", "kind": "video", "start": first / FPS, "end": end / FPS,
        "start_pts": first * TICKS, "end_pts": end * TICKS, "duration": (end - first) / FPS,
        "width": 128, "height": 128, "fps": float(FPS), "dup_of": "", **more,
    }  # fmt: skip


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """A video with a name that a URI would not have."""
    place = tmp_path / "films" / "a b%20\n🎬.mp4"
    write_video(place, sample(1, 2).frames(FRAMES), fps=FPS, scale=2)
    return place


def selected(folder: Path, film: Path, clips: list[dict[str, Any]], policy: str = "") -> Path:
    """A catalogue of clips of the film, with a policy that keeps them all."""
    folder.mkdir(exist_ok=True)
    write_catalogue(
        folder,
        [{"uri": uri_of(film), **clip} for clip in clips],
        [{**VIDEO, "video_id": "v0", "uri": uri_of(film)}],
    )
    (folder / "all.yaml").write_text(f"name: all\n{policy}")
    select.run(SelectConfig(catalogue=folder, policy=str(folder / "all.yaml")))
    return folder


def exported(folder: Path, **settings: object) -> ExportResult:
    config = {"catalogue": folder, "policy": str(folder / "all.yaml"), "out": folder / "out"}
    return writing.run(ExportConfig.model_validate({**config, "workers": 2, **settings}))


def manifest(folder: Path) -> list[Clip]:
    return read_manifest(folder / "out" / MANIFEST_NAME)


def test_clips_are_the_frames_of_their_spans(tmp_path: Path, film: Path) -> None:
    folder = selected(tmp_path / "cat", film, [span("a", 0, 30), span("b", 30, 48)])
    found = exported(folder)
    assert (found.clips, found.written, found.failed) == (2, 2, 0)
    whole = read_video(film).frames.astype(int)
    for clip, (first, end) in zip(manifest(folder), [(0, 30), (30, 48)], strict=True):
        frames = read_video(folder / "out" / clip.path).frames
        assert (clip.frames, clip.height, clip.width) == (end - first, 128, 128)
        assert clip.fps == pytest.approx(FPS)
        assert clip.source == "v0"
        assert np.abs(frames - whole[first:end]).mean() < 2


def test_what_is_there_stays_and_another_crop_is_another_file(tmp_path: Path, film: Path) -> None:
    folder = selected(tmp_path / "cat", film, [span("a", 0, 30), span("b", 30, 48)])
    exported(folder)
    before = manifest(folder)
    assert exported(folder).written == 0
    (folder / "out" / before[0].path).unlink()
    assert exported(folder).written == 1
    crop = {"crop_x": 0.25, "crop_y": 0.0, "crop_width": 0.5, "crop_height": 0.5}
    selected(folder, film, [span("a", 0, 30, **crop), span("b", 30, 48)])
    assert exported(folder).written == 1
    after = manifest(folder)
    assert after[1] == before[1]
    assert after[0].id == before[0].id
    assert after[0].path != before[0].path
    assert (after[0].height, after[0].width) == (64, 64)


def test_a_bucket_cuts_clips_to_its_duration_and_shape(tmp_path: Path, film: Path) -> None:
    buckets = BucketConfig(areas=(64 * 112,), frames=(17,), fps=FPS, max_crop=0.9)
    policy = f"bucket: {json.dumps(buckets.model_dump(mode='json'))}\n"
    folder = selected(tmp_path / "cat", film, [span("a", 3, 48)], policy)
    exported(folder)
    (clip,) = manifest(folder)
    fit = Buckets(buckets).fit(clip.size)
    assert isinstance(fit, Fit)
    assert clip.frames == 17
    assert fit.cropped < 0.05
    shown = read_clip(folder / "out", clip, fit, MIDDLE)
    assert len(shown) == 17


def test_key_frames_and_picture_files_become_pictures(tmp_path: Path, film: Path) -> None:
    Image.fromarray(np.full((60, 80, 3), 77, np.uint8)).save(tmp_path / "p.png")
    picture = {"kind": "picture", "duration": 0.0}
    clips = [
        {**span("a", 20, 20), **picture},
        {**span("b", 0, 0), **picture, "uri": uri_of(tmp_path / "p.png"), "video_id": "v1"},
    ]
    folder = tmp_path / "cat"
    selected(folder, film, clips)
    write_catalogue(
        folder,
        [{"uri": uri_of(film), **clip} for clip in clips],
        [{**VIDEO, "video_id": "v0", "uri": uri_of(film)},
         {**VIDEO, "video_id": "v1", "uri": uri_of(tmp_path / "p.png"), "time_base": "1"}],
    )  # fmt: skip
    exported(folder)
    first, second = manifest(folder)
    assert (first.kind, first.frames, first.fps) == ("picture", 1, 0)
    whole = read_video(film).frames.astype(int)
    shown = np.asarray(Image.open(folder / "out" / first.path))
    assert np.abs(shown - whole[20]).mean() < 2
    assert (second.height, second.width) == (60, 80)


def test_a_source_that_is_gone_is_a_row_with_the_reason(tmp_path: Path, film: Path) -> None:
    folder = selected(tmp_path / "cat", film, [span("a", 0, 30), span("b", 500, 600)])
    found = exported(folder)
    assert (found.clips, found.failed) == (1, 1)
    assert "no frames in that time" in manifest(folder)[1].fault
    film.unlink()
    assert exported(folder).failed == 1  # the clip that is there stays
    assert not list((folder / "out").rglob(".part*"))


def test_a_virtual_table_points_into_the_sources(tmp_path: Path, film: Path) -> None:
    crop = {"crop_x": 0.25, "crop_y": 0.0, "crop_width": 0.5, "crop_height": 0.5}
    clips = [span("a", 5, 30), span("b", 30, 48, **crop), {**span("k", 9, 9), "kind": "picture"}]
    folder = selected(tmp_path / "cat", film, clips)
    found = exported(folder, virtual=True)
    assert found.left_out == {"needs a crop": 1, "is a key frame of a video": 1}
    assert f"--root {film.parent}" in str(found)
    (clip,) = manifest(folder)
    assert (clip.start, clip.frames, clip.path) == (5, 25, film.name)
    buckets = Buckets(BucketConfig(areas=(128 * 128,), frames=(25,), fps=FPS))
    fit = buckets.fit(clip.size)
    assert isinstance(fit, Fit)
    shown = read_clip(film.parent, clip, fit, MIDDLE)
    assert np.abs(shown.astype(int) - read_video(film).frames[5:30]).mean() < 1
    assert list((folder / "out").iterdir()) == [folder / "out" / MANIFEST_NAME]


@pytest.mark.parametrize("layout", ["metadata", "webdataset"])
def test_packed_clips_are_read_with_their_captions(tmp_path: Path, film: Path, layout: str) -> None:
    folder = selected(tmp_path / "cat", film, [span("a", 0, 30), span("b", 30, 48)])
    exported(folder)
    first, second = manifest(folder)
    out, store = tmp_path / "packed", folder / "out" / MANIFEST_NAME
    config = PackConfig.model_validate({"clips": folder / "out", "layout": layout, "out": out})
    with pytest.raises(UserError, match="no clip has a caption"):
        pack.run(config)
    assert not out.exists()
    write_manifest(store, [replace(first, short="a dog", long="a long dog"), second])
    found = pack.run(config)
    assert (found.clips, found.left_out) == (1, 1)
    (clip,) = read_dataset(out).clips
    assert (clip.short, clip.long, clip.fault) == ("a dog", "a long dog", "")
    with pytest.raises(UserError, match="is not empty"):
        pack.run(config)


def test_without_decisions_the_way_is_told(tmp_path: Path, film: Path) -> None:
    folder = selected(tmp_path / "cat", film, [span("a", 0, 30)])
    with pytest.raises(UserError, match="has no decisions yet; run `contentv curate select"):
        exported(folder, policy="pretraining")


@pytest.mark.parametrize(("picture", "wanted"), [(2.0, 1.0), (1.0, 2.0), (16 / 9, 9 / 16)])
def test_the_middle_of_a_box_gets_the_wanted_shape(picture: float, wanted: float) -> None:
    box = Box(0.1, 0.2, 0.6, 0.5)
    found = shaped(box, picture, wanted)
    assert picture * found.width / found.height == pytest.approx(wanted)
    assert found.x + found.width / 2 == pytest.approx(box.x + box.width / 2)
    assert found.y + found.height / 2 == pytest.approx(box.y + box.height / 2)
    assert max(found.width / box.width, found.height / box.height) == pytest.approx(1)
