from pathlib import Path

import pytest
import torch

from contentv.base.errors import WorldError
from contentv.encoding.store import INDEX_NAME, Row, ShardFolder, write_shard


def write(folder: Path, *rows: Row, first: float = 0.0) -> Path:
    count = sum(not row.fault for row in rows)
    values = first + torch.arange(count * 6.0).reshape(count, 2, 3)
    return write_shard(folder, rows, {"x": values.bfloat16(), "y": -values} if count else {})


def ok(key: str) -> Row:
    return Row(key, f"clip {key}", "5x64x64")


def bad(key: str, fault: str = "is cut short") -> Row:
    return Row(key, f"clip {key}", "5x64x64", fault)


def opened(folder: Path) -> ShardFolder:
    shards = ShardFolder(folder)
    shards.refresh()
    return shards


def test_a_row_is_found_by_its_key_and_rows_without_tensors_take_no_place(tmp_path: Path) -> None:
    write(tmp_path, ok("a"), bad("b"), ok("c"))
    write(tmp_path, ok("d"), first=100)
    shards = opened(tmp_path)
    assert torch.equal(shards.read("c", ["x"])["x"], torch.arange(6.0, 12).reshape(2, 3).bfloat16())
    assert torch.equal(shards.read("d", ["y"])["y"], -100 - torch.arange(6.0).reshape(2, 3))
    assert [shards.places[key].fault for key in "abcd"] == ["", "is cut short", "", ""]
    assert shards.missing("abcde") == {"e"}
    assert shards.missing("abcde", retry=True) == {"b", "e"}


def test_equal_rows_are_one_file_and_the_index_says_no_more_than_the_shards(tmp_path: Path) -> None:
    paths = {write(tmp_path, ok("a"), bad("b", "\udcff.mp4: is cut short")) for _ in range(2)}
    assert len(paths) == 1
    places = opened(tmp_path).places
    index = tmp_path / INDEX_NAME
    written = index.read_bytes(), index.stat().st_mtime_ns
    assert opened(tmp_path).places == places
    assert (index.read_bytes(), index.stat().st_mtime_ns) == written
    index.unlink()
    assert ShardFolder(tmp_path).places == places
    index.write_bytes(b"nothing")
    assert opened(tmp_path).places == places
    assert index.read_bytes() == written[0]


def test_a_shard_cut_short_or_gone_is_forgotten_until_it_is_made_again(tmp_path: Path) -> None:
    path = write(tmp_path, ok("a"))
    write(tmp_path, ok("b"), first=1)
    opened(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    shards = opened(tmp_path)
    assert shards.missing("ab") == {"a"}
    assert write(tmp_path, ok("a")) == path
    assert path.read_bytes() == data
    shards.refresh()
    assert shards.missing("ab") == set()
    path.unlink()
    assert opened(tmp_path).missing("ab") == {"a"}


def test_a_second_try_that_works_wins_over_the_first(tmp_path: Path) -> None:
    write(tmp_path, bad("a"), bad("b"))
    write(tmp_path, ok("a"))
    write(tmp_path, bad("a", "again"))
    shards = opened(tmp_path)
    assert not shards.places["a"].fault
    assert shards.places["b"].fault


def test_what_is_no_shard_of_ours_is_named_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    write(tmp_path, ok("a"))
    assert set(opened(tmp_path).places) == {"a"}
    assert "x.safetensors: damaged" in caplog.text


def test_reading_from_a_shard_that_broke_since_says_what_to_do(tmp_path: Path) -> None:
    path = write(tmp_path, ok("a"))
    shards = opened(tmp_path)
    path.write_bytes(b"")
    with pytest.raises(WorldError, match="--verify --remove"):
        shards.read("a", ["x"])
