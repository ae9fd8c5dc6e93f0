import errno
import os
import subprocess
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from contentv.base.errors import UserError, WorldError
from contentv.base.files import (
    atomic_dir,
    atomic_path,
    os_errors,
    part_of,
    read_json,
    remove,
    write_json,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_halfway(atomic: AbstractContextManager[Path], error: type[BaseException]) -> None:
    with atomic as part:
        (part / "2" if part.is_dir() else part).write_text("half")
        raise error


def test_a_file_appears_whole_with_its_parents(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "video.mp4"
    with atomic_path(path) as part:
        assert part.suffix == ".mp4"
        part.write_bytes(b"12")
        assert not path.exists()
    assert path.read_bytes() == b"12"
    assert names(path.parent) == ["video.mp4"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_is_left_of_a_failed_file(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "x").write_text("old")
    with pytest.raises(error):
        fail_halfway(atomic_path(tmp_path / "x"), error)
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "old"


def test_a_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "frames"
    for content in ("1", "2"):
        with atomic_dir(path) as part:
            assert part.suffix == ""
            (part / content).write_text(content)
    assert names(tmp_path) == ["frames"]
    assert names(path) == ["2"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    with atomic_dir(tmp_path / "frames") as part:
        (part / "1").write_text("1")
    with pytest.raises(ZeroDivisionError):
        fail_halfway(atomic_dir(tmp_path / "frames"), ZeroDivisionError)
    assert names(tmp_path) == ["frames"]
    assert names(tmp_path / "frames") == ["1"]


def test_leftovers_of_a_killed_process_go_and_those_of_a_running_one_stay(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    ours, other = tmp_path / "x.json", tmp_path / "y.json"
    elsewhere = tmp_path / f".part-elsewhere-{dead.pid}-x.json"  # of a machine that may be running
    stays = [part_of(ours, os.getppid()), part_of(other, dead.pid), elsewhere]
    for file in (part_of(ours, dead.pid), *stays):
        file.write_text("half")
    write_json(ours, {})
    assert names(tmp_path) == sorted(file.name for file in (*stays, ours))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied"),
        (errno.EIO, os.strerror(errno.EIO)),
    ],
)
def test_system_errors_become_one_line_with_a_way_out(
    tmp_path: Path, number: int, words: str
) -> None:
    with pytest.raises(WorldError) as caught, os_errors(tmp_path, "write"):
        raise OSError(number, os.strerror(number))
    assert str(caught.value).startswith(f"cannot write {tmp_path}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(WorldError, match="cannot write"), atomic_path(tmp_path / "x" / "y"):
        pass


def test_json_survives_and_nan_does_not_enter(tmp_path: Path) -> None:
    content = {"prompt": "一只猫", "steps": [1, 2.5, None]}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"loss": float("nan")})
    assert read_json(tmp_path / "x.json") == content


def test_bad_json_is_the_users_and_a_missing_file_the_worlds(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(WorldError, match="no such file"):
        read_json(tmp_path / "y.json")


def test_remove_takes_files_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("")
    (tmp_path / "f").write_text("")
    for name in ("d", "f", "absent"):
        remove(tmp_path / name)
    assert names(tmp_path) == []
