"""All real steps over real files: the same catalogue from anybody who works, and retries."""

from pathlib import Path

import pytest
from PIL import Image

from contentv.base.errors import UserError
from contentv.curation.catalogue import VIDEOS, read_columns
from contentv.curation.config import CurationSettings, RetryConfig, RunConfig
from contentv.curation.engine.run import retry, run
from contentv.curation.engine.scan import path_of
from contentv.curation.engine.steps import chain_of
from contentv.curation.settings import BlurSettings, TextSettings
from curating import content_hash, curate, small_job, write_videos
from hostile import hostile_files


def test_a_change_reaches_what_builds_on_it_and_nothing_else() -> None:
    usual = list(chain_of(CurationSettings()).columns)
    names = ["video", "shots", "text", "overlays", "crop", "blur", "motion", "aesthetic"]
    assert [key.split("@")[0] for key in usual] == [*names, "embedding", "hashes"]

    def changed(settings: CurationSettings) -> set[str]:
        return {key.split("@")[0] for key in {*chain_of(settings).columns} - {*usual}}

    assert changed(CurationSettings()) == set()
    assert changed(CurationSettings(blur=BlurSettings(tiles=8))) == {"blur"}
    text = CurationSettings(text=TextSettings(min_score=0.7))
    assert changed(text) == {"text", "crop", *names[5:]}, "vectors and hashes ignore the crop"


def test_no_two_steps_have_a_column_of_one_name() -> None:
    columns = [name for own in chain_of(CurationSettings()).scores.values() for name in own]
    assert len(columns) == len(set(columns))


def test_a_retry_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no run\.yaml; begin with contentv curate run"):
        retry(RetryConfig(out=tmp_path, error_class="timeout"))


def test_unreadable_settings_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("blur: {tiles: 0}\n")
    asked = RunConfig(sources=(tmp_path,), out=tmp_path / "out", settings=tmp_path / "s.yaml")
    with pytest.raises(UserError, match=r"blur\.tiles=0"):
        run(asked)


def test_failed_files_are_tried_again_by_class(tmp_path: Path) -> None:
    folder, out = tmp_path / "f\nodd", tmp_path / "out"
    folder.mkdir()
    (folder / "empty.mp4").write_bytes(b"")
    frames = [Image.new("RGB", (8, 8), (value, 0, 0)) for value in (0, 255)]
    frames[0].save(folder / "moves.webp", save_all=True, append_images=frames[1:])
    summary = run(RunConfig(sources=(folder,), out=out, workers=1))
    assert summary.failed == {"corrupt": 1, "unsupported": 1}
    for failure, count in {"corrupt": 1, "unsupported": 1, "timeout": 0}.items():
        again = retry(RetryConfig.model_validate({"out": out, "error_class": failure}))
        assert (again.visited, again.failed) == (count, summary.failed)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_steps_give_the_same_bytes_whoever_works(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write_videos(folder, 3, frames=100)
    Image.effect_noise((320, 200), 60).convert("RGB").save(folder / "noise.png")
    hashes = set()
    for number, how in enumerate([("local", 1), ("local", 2), ("ray", 2)]):
        engine, workers = how
        out = tmp_path / f"out{number}"
        asked = {"sources": (folder,), "out": out, "engine": engine, "workers": workers}
        assert run(RunConfig.model_validate(asked)).ok == 4
        hashes.add(content_hash(out))
    assert len(hashes) == 1


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_hostile_file_is_one_row(tmp_path: Path) -> None:
    files = hostile_files(tmp_path / "f")
    summary = curate(tmp_path / "f", small_job(tmp_path / "out"))
    assert summary.videos == len(files)
    table = read_columns(tmp_path / "out", VIDEOS, ["uri", "status", "error_class"])
    rows = zip(*table.values(), strict=True)
    found = {path_of(uri): cause if status == "failed" else status for uri, status, cause in rows}
    assert found == {file.path: file.verdict for file in files}
