import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contentv.base.errors import UserError
from contentv.curation.engine.scan import Scan, Source, path_of, scan, uri_of

OLD = time.time() - 100


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (OLD, OLD))
    return path


def names_of(found: Scan, folder: Path) -> dict[str, list[str]]:
    def name(source: Source) -> list[str]:
        return [os.fspath(file.path.relative_to(folder)) for file in source.files]

    return {source.video_id: name(source) for source in found.videos}


def scanned(folder: Path, *sources: Path) -> Scan:
    return scan(sources or [folder], folder.with_name("cache.parquet"))


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_any_name_becomes_printable_text_and_back(name: bytes) -> None:
    path = Path("/") / os.fsdecode(name)
    uri = uri_of(path)
    assert uri.isprintable()
    assert uri.encode() == uri.encode("utf-8", "strict")
    assert path_of(uri) == path


def test_common_names_stay_readable() -> None:
    assert uri_of(Path("/a/my film é.mp4")) == "/a/my film é.mp4"
    assert uri_of(Path("/a/100%\n.mp4")) == "/a/100%25%0A.mp4"


def test_the_same_bytes_are_one_video_with_several_places(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    for name, content in {"b.mp4": b"1", "a/c.MP4": b"1", "z.png": b"2", "notes.txt": b"3"}.items():
        write(folder / name, content)
    found = scanned(folder)
    assert sorted(names_of(found, folder).values()) == [["a/c.MP4", "b.mp4"], ["z.png"]]
    assert {source.kind for source in found.videos} == {"video", "picture"}
    assert found.videos == sorted(found.videos, key=lambda source: source.video_id)


def test_a_video_keeps_its_name_when_it_moves_and_loses_it_when_it_changes(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    first = write(folder / "a.mp4", b"1")
    before = list(names_of(scanned(folder), folder))
    first.rename(folder / "b.mp4")
    assert list(names_of(scanned(folder), folder)) == before
    write(folder / "b.mp4", b"22")
    assert list(names_of(scanned(folder), folder)) != before


def test_unchanged_files_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "f"
    write(folder / "a.mp4", b"1")
    fresh = folder / "fresh.mp4"
    fresh.write_bytes(b"2")
    before = scanned(folder)
    opened: list[str] = []
    real = Path.open

    def watched(path: Path, *args: str) -> object:
        opened.append(path.name)
        return real(path, *args)

    monkeypatch.setattr(Path, "open", watched)
    assert scanned(folder) == before
    assert [name for name in opened if name.endswith(".mp4")] == ["fresh.mp4"]


def test_a_damaged_cache_is_made_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "f"
    write(folder / "a.mp4", b"1")
    before = scanned(folder)
    (tmp_path / "cache.parquet").write_bytes(b"PAR1")
    caplog.set_level("WARNING", "contentv")
    assert scanned(folder) == before
    assert "reading all files again" in caplog.text


def test_odd_names_are_files_like_others(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    names = [b"new\nline.mp4", b"'q\".mp4", b"..mp4.mp4", b"\xff\xfe.mp4", "\N{CAT FACE}".encode()]
    for number, name in enumerate(names):
        write(folder / os.fsdecode(name.removesuffix(b".mp4") + b".mp4"), b"%d" % number)
    found = scanned(folder)
    assert len(found.videos) == len(names)
    for source in found.videos:
        assert path_of(source.files[0].uri).is_file()
        assert not source.fault
    assert scanned(folder) == found


def test_loops_of_links_end(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "f"
    write(folder / "sub" / "a.mp4", b"1")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "other").symlink_to(folder / "sub")
    (folder / "itself.mp4").symlink_to("itself.mp4")
    (folder / "lost.mp4").symlink_to("nowhere.mp4")
    caplog.set_level("WARNING", "contentv")
    found = scanned(folder)
    faults = {source.files[0].path.name: source.fault for source in found.videos}
    assert set(faults) == {"a.mp4", "itself.mp4", "lost.mp4"}
    assert faults["lost.mp4"] == "no such file or folder"
    assert faults["a.mp4"] == ""
    assert "symbolic" in faults["itself.mp4"]
    assert len(found.notes) == 2
    assert all("seen already; passed over" in note for note in found.notes)


def test_things_that_are_no_files_are_faults(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    os.mkfifo(folder / "pipe.mp4")
    (folder / "folder.mp4").mkdir()
    write(folder / "folder.mp4" / "inside.mp4", b"1")
    faults = {source.files[0].path.name: source.fault for source in scanned(folder).videos}
    assert faults == {"pipe.mp4": "is not a file", "inside.mp4": ""}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    write(folder / "a.mp4", b"1").chmod(0)
    write(folder / "locked" / "b.mp4", b"1")
    (folder / "locked").chmod(0)
    found = scanned(folder)
    (folder / "locked").chmod(0o700)
    assert [source.fault for source in found.videos] == [
        "permission denied; choose a place you may use"
    ]
    assert len(found.notes) == 1


def test_files_may_be_named_directly_and_twice(tmp_path: Path) -> None:
    file = write(tmp_path / "f" / "a.film", b"1")
    found = scanned(tmp_path / "f", file, file)
    assert [(source.kind, len(source.files)) for source in found.videos] == [("video", 1)]


def test_a_source_that_does_not_exist_is_the_askers_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: there is no such file or folder"):
        scanned(tmp_path / "f", tmp_path / "nowhere")
