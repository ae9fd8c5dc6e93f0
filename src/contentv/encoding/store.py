"""A folder of shards: stacked tensors with the name of each row, found by content.

A shard is named by the hash of its bytes and is whole or absent, so it can be written by anybody
at any time; the index beside the shards can always be made again from them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from contentv.base.errors import WorldError
from contentv.base.files import atomic_path, os_errors
from contentv.base.log import get_logger
from contentv.encoding.index import IndexRow, read_index, write_index

if TYPE_CHECKING:
    from torch import Tensor

CLIPS, CAPTIONS = "clips", "captions"  # folders of a store of features
INDEX_NAME = "index.parquet"
_SUFFIX = ".safetensors"
_ROWS = "rows"

_log = get_logger(__name__)


class Row(NamedTuple):
    """What a shard says of one thing in it; one with a fault has no tensors (see `IndexRow`)."""

    key: str
    name: str
    shape: str
    fault: str = ""


class ShardFolder:
    """Shards and what they hold, by key. Does not import torch unless tensors are asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[str, IndexRow] = {}
        self._written = read_index(folder / INDEX_NAME)
        self._rows = self._adopt(self._written)

    def refresh(self) -> None:
        """Take in shards that have come since, forget those that went, write the index if need be.

        A shard that is shorter than it was counts as gone, one that cannot be read too.
        """
        self._rows = self._adopt(self._rows)
        if self._rows != self._written:
            write_index(self.folder / INDEX_NAME, self._rows)
            self._written = self._rows

    def missing(self, keys: Iterable[str], *, retry: bool = False) -> set[str]:
        """Those of `keys` of which nothing is known, or with `retry` nothing but a fault."""
        return {
            key
            for key in keys
            if (place := self.places.get(key)) is None or (retry and place.fault)
        }

    def read(self, key: str, names: Sequence[str]) -> dict[str, "Tensor"]:
        """Tensors of a key that has no fault; WorldError when its shard is damaged."""
        from safetensors import SafetensorError, safe_open

        place = self.places[key]
        path = self.folder / place.shard
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_slice(name)[place.row] for name in names}
        except (SafetensorError, OSError, IndexError) as error:
            advice = "`contentv encode --verify --remove` and encode again"
            raise WorldError(f"{path}: damaged ({error}); run {advice}") from error

    def _adopt(self, known: list[IndexRow]) -> list[IndexRow]:
        there = {path.name: path.stat().st_size for path in shard_files(self.folder)}
        rows = [row for row in known if there.get(row.shard) == row.bytes]
        for name in sorted(there.keys() - {row.shard for row in rows}):
            rows += _read_rows(self.folder / name)
        rows.sort(key=lambda row: (row.shard, row.row, row.key))
        self.places = {}
        for row in rows:
            if row.key not in self.places or not row.fault:
                self.places[row.key] = row
        return rows


def write_shard(folder: Path, rows: Sequence[Row], tensors: Mapping[str, "Tensor"]) -> Path:
    """Write tensors [n ...], n the number of `rows` without a fault, in their order."""
    from safetensors.torch import save

    # One entry of metadata: safetensors writes several in any order, and then as other bytes.
    data = save(dict(tensors), {_ROWS: json.dumps(rows)})
    path = folder / f"{content_name(data)}{_SUFFIX}"
    with atomic_path(path) as part:
        part.write_bytes(data)
    return path


def content_name(data: bytes) -> str:
    """Hash by which bytes are named: 32 hex digits."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def text_key(text: str) -> str:
    """Name of a caption: the hash of its text, 32 hex digits."""
    return content_name(text.encode("utf-8", "surrogatepass"))


def shard_files(folder: Path) -> list[Path]:
    """The shards of a folder, by name; none when it is not there."""
    with os_errors(folder, "read"):
        return sorted(folder.glob(f"[!.]*{_SUFFIX}"))


def parse_rows(metadata: Mapping[str, str] | None) -> list[Row]:
    """What the header of a shard says of its rows; ValueError when it is not one of ours."""
    rows = [Row(*row) for row in json.loads((metadata or {}).get(_ROWS, ""))]
    if not all(isinstance(value, str) for row in rows for value in row):
        raise ValueError("rows are not text")
    return rows


def read_metadata(path: Path) -> Mapping[str, str] | None:
    """Metadata of a shard; SafetensorError or OSError when it is cut short."""
    from safetensors import safe_open

    with safe_open(path, "np") as file:
        metadata: Mapping[str, str] | None = file.metadata()
    return metadata


def _read_rows(path: Path) -> list[IndexRow]:
    from safetensors import SafetensorError

    try:
        rows = parse_rows(read_metadata(path))
        size = path.stat().st_size
    except (SafetensorError, OSError, ValueError, TypeError) as error:
        _log.warning("%s: damaged (%s); what it held will be made again", path, error)
        return []
    found, count = [], 0
    for row in rows:
        # Names of files need not be text, but a column of a table must be.
        texts = (value.encode("utf-8", "backslashreplace").decode() for value in row)
        found.append(IndexRow(path.name, size, -1 if row.fault else count, *texts))
        count += not row.fault
    return found
