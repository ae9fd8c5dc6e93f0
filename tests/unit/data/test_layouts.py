import io
import json
import tarfile
from pathlib import Path

import pytest

from contentv.base.errors import UserError
from contentv.data.layouts import read_dataset
from contentv.data.manifest import Clip, write_manifest

CAPTIONS = {"a.mp4": "a cat", "sub/b.mov": "a dog", "c.png": "a bird"}


def files(folder: Path, *names: str) -> Path:
    for name in names or CAPTIONS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"not opened here")
    return folder


def captions(path: Path, root: Path | None = None) -> dict[str, str]:
    clips = read_dataset(path, root).clips
    assert [clip.fault for clip in clips] == [""] * len(clips)
    return {clip.path: clip.short for clip in clips}


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def test_text_files_beside_clips(tmp_path: Path) -> None:
    files(tmp_path)
    for name, text in CAPTIONS.items():
        (tmp_path / name).with_suffix(".txt").write_text(f"{text}\n")
    files(tmp_path, ".hidden/x.mp4", "notes.md")
    assert captions(tmp_path) == CAPTIONS
    listing = read_dataset(tmp_path)
    assert listing.layout == "sidecars"
    assert [clip.kind for clip in listing.clips] == ["video", "picture", "video"]
    assert listing.notes == ()


def test_a_json_file_beside_a_clip_may_hold_both_captions(tmp_path: Path) -> None:
    files(tmp_path, "a.mp4")
    (tmp_path / "a.json").write_text(json.dumps({"prompt": "short", "long_prompt": "long one"}))
    (clip,) = read_dataset(tmp_path).clips
    assert (clip.short, clip.long) == ("short", "long one")


@pytest.mark.parametrize(
    ("caption", "fault"),
    [
        (None, "has no caption"),
        (b" \n", "has no caption"),
        (b"\xff\xfe", "its caption, a.txt, cannot be read as UTF-8 text"),
        (b"x" * (2 << 20), "its caption, a.txt, cannot be read as UTF-8 text"),
    ],
)
def test_a_bad_caption_is_the_clips_fault(
    tmp_path: Path, caption: bytes | None, fault: str
) -> None:
    files(tmp_path, "a.mp4")
    if caption is not None:
        (tmp_path / "a.txt").write_bytes(caption)
    assert [clip.obstacle for clip in read_dataset(tmp_path).clips] == [fault]


def test_captions_without_clips_are_counted(tmp_path: Path) -> None:
    files(tmp_path, "a.mp4", "a.txt", "lost.txt", "lost2.txt")
    assert read_dataset(tmp_path).notes == ("2 .txt files have no clip beside them",)


def test_tables(tmp_path: Path) -> None:
    for kind, text in {
        "csv": "file_name,caption\n" + "".join(f'{n},"{c}"\r\n' for n, c in CAPTIONS.items()),
        "jsonl": "".join(json.dumps({"video": n, "text": c}) + "\n" for n, c in CAPTIONS.items()),
        "json": json.dumps([{"path": n, "prompt": c} for n, c in CAPTIONS.items()]),
    }.items():
        folder = files(tmp_path / kind)
        (folder / f"metadata.{kind}").write_text("\ufeff" + text, encoding="utf-8")
        assert captions(folder) == CAPTIONS
        assert captions(folder / f"metadata.{kind}") == CAPTIONS
        assert read_dataset(folder).layout == "table"
    named = tmp_path / "any name.json"
    named.write_text(json.dumps(CAPTIONS))
    assert captions(named, tmp_path / "csv") == CAPTIONS
    named.write_text(json.dumps({"data": [{"path": "a.mp4", "cap": ["longest one", "short"]}]}))
    (clip,) = read_dataset(named).clips
    assert (clip.short, clip.long) == ("short", "longest one")


def test_two_text_files(tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / "videos.txt").write_text("\n".join(CAPTIONS) + "\n")
    (tmp_path / "prompt.txt").write_text("\n".join(CAPTIONS.values()) + "\n")
    assert captions(tmp_path) == captions(tmp_path / "videos.txt") == CAPTIONS
    (tmp_path / "prompt.txt").write_text("a cat\na dog\n")
    with pytest.raises(UserError, match=r"has 3 lines and prompt.txt 2"):
        read_dataset(tmp_path)
    (tmp_path / "captions.txt").touch()
    with pytest.raises(UserError, match=r"prompt.txt and captions.txt; it needs one"):
        read_dataset(tmp_path)


def test_tar_shards(tmp_path: Path) -> None:
    first = tar(
        tmp_path / "0.tar",
        {
            "00.txt": b"a cat",
            "00.mp4": b"V" * 700,
            "x/01.mp4": b"W" * 3,
            "x/01.json": b'{"caption": "a dog", "long_caption": "a long dog"}',
            "x/00.txt": b"of nobody",
            "readme.md": b"",
        },
    )
    tar(tmp_path / "1.tar", {"00.mp4": b"U", "00.txt": b"a bird"})
    listing = read_dataset(tmp_path)
    one, two, three = listing.clips
    assert listing.layout == "webdataset"
    assert [clip.id for clip in listing.clips] == ["0.tar/00.mp4", "0.tar/x/01.mp4", "1.tar/00.mp4"]
    assert [clip.short for clip in listing.clips] == ["a cat", "a dog", "a bird"]
    assert two.long == "a long dog"
    data = (tmp_path / one.path).read_bytes()
    assert data[one.offset : one.offset + one.length] == b"V" * 700
    assert (tmp_path / three.path).read_bytes()[three.offset :][: three.length] == b"U"
    assert len(read_dataset(first).clips) == 2


@pytest.mark.parametrize("size", [100, 600, 1500, 2100, 5000])
def test_a_damaged_tar_is_a_fault_with_a_reason(tmp_path: Path, size: int) -> None:
    shard = tar(tmp_path / "0.tar", {f"{i}.mp4": b"V" * 1000 for i in range(5)})
    shard.write_bytes(shard.read_bytes()[:size])
    clips = read_dataset(tmp_path).clips
    faults = [clip.fault for clip in clips if clip.fault]
    assert len(faults) >= 1
    assert any("damaged" in fault or "cut short" in fault for fault in faults)
    for clip in clips:
        assert clip.fault or clip.offset + clip.length <= size


def test_members_of_a_tar_lead_nowhere(tmp_path: Path) -> None:
    tar(tmp_path / "0.tar", {"../../x.mp4": b"V", "ok.mp4": b"V", "ok.txt": b"a cat"})
    with tarfile.open(tmp_path / "0.tar", "a") as file:
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    bad, good = read_dataset(tmp_path).clips
    assert "leads out of the data's folder" in bad.fault
    assert good.fault == ""


def test_our_manifest(tmp_path: Path) -> None:
    clip = Clip("a", "a.mp4", "video", "a cat", frames=9, fps=8.0, height=64, width=64)
    write_manifest(tmp_path / "manifest.parquet", [clip])
    listing = read_dataset(tmp_path)
    assert (listing.layout, listing.clips, listing.root) == ("manifest", [clip], tmp_path)
    assert read_dataset(tmp_path / "manifest.parquet", Path("/data")).root == Path("/data")


@pytest.mark.parametrize(
    "text",
    [
        "file_name,caption\n../x.mp4,a cat\n",
        "file_name,caption\n/etc/x.mp4,a cat\n",
        "file_name,caption\nsub/../../x.mp4,a cat\n",
        "file_name,caption\n,a cat\n",
        "file_name,caption\nx.doc,a cat\n",
        "file_name,caption\nx.mp4,a cat, and a dog\n",
    ],
)
def test_rows_that_make_no_sense_are_faults(tmp_path: Path, text: str) -> None:
    (tmp_path / "metadata.csv").write_text(text)
    (clip,) = read_dataset(tmp_path).clips
    assert clip.fault


def test_a_bad_line_of_json_is_one_fault(tmp_path: Path) -> None:
    lines = ['{"path": "a.mp4", "text": "x"}', "{", "3", '{"path": 5, "text": "x"}', ""]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    clips = read_dataset(tmp_path).clips
    assert [clip.fault for clip in clips] == [
        "",
        "row 2: is not a JSON object",
        "row 3: is not a JSON object",
        "row 4: the file name is not text",
    ]
    assert len({clip.id for clip in clips}) == 4


def test_the_same_file_twice_is_two_clips(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("video,text\na.mp4,x\n./a.mp4,y\n")
    assert [clip.id for clip in read_dataset(tmp_path).clips] == ["a.mp4", "a.mp4#2"]


def test_clips_that_a_table_forgets_are_counted(tmp_path: Path) -> None:
    files(tmp_path)
    (tmp_path / "metadata.csv").write_text("video,text\na.mp4,x\n")
    (note,) = read_dataset(tmp_path).notes
    assert note == "2 clips in the folder are not named by its table, such as c.png"


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ({}, "no clips found; a data set is clips with .txt files"),
        ({"readme.md": ""}, "no clips found"),
        ({"metadata.csv": "video,text\n", "metadata.json": "[]"}, "metadata.csv and metadata.json"),
        ({"metadata.csv": "video,text\n", "0.tar": ""}, "metadata.csv and 0.tar both describe"),
        ({"metadata.csv": "a,b\nx.mp4,y\n"}, "no column of file names; has a, b; name one file_"),
        ({"metadata.csv": "video,b\nx.mp4,y\n"}, "no column of captions; has video, b"),
        ({"metadata.csv": "video,text\n\"x\n"}, "not CSV"),
        ({"metadata.json": "{"}, "not JSON"),
        ({"metadata.json": "3"}, "must be a list of objects"),
        ({"metadata.json": "[" * 100_000}, "not JSON"),
        ({"videos.txt": "a.mp4\n"}, r"videos.txt and no prompt.txt"),
        ({"manifest.parquet": ""}, "damaged"),
    ],
)  # fmt: skip
def test_folders_that_say_nothing_or_two_things(
    tmp_path: Path, contents: dict[str, str], words: str
) -> None:
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(Exception, match=words):
        read_dataset(tmp_path)


def test_other_paths_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.md").touch()
    with pytest.raises(UserError, match="no such file or folder"):
        read_dataset(tmp_path / "absent")
    with pytest.raises(UserError, match="does not describe a data set"):
        read_dataset(tmp_path / "notes.md")
    with pytest.raises(UserError, match=r"root=.*leave it out"):
        read_dataset(tmp_path, tmp_path)
    (tmp_path / "metadata.csv").write_bytes(b"video,text\n\xff.mp4,x\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_dataset(tmp_path)


def test_a_tar_damaged_in_the_middle_is_not_taken_for_its_end(tmp_path: Path) -> None:
    shard = tar(tmp_path / "0.tar", {f"{i}.mp4": b"V" * 1000 for i in range(5)})
    data = bytearray(shard.read_bytes())
    data[2 * 1536 : 2 * 1536 + 512] = b"x" * 512
    shard.write_bytes(data)
    clips = read_dataset(tmp_path).clips
    assert [clip.fault for clip in clips] == ["", "", "the tar file is damaged after 2 clips"]
