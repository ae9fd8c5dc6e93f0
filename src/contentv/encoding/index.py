"""The table of what lies in which shard, as Parquet. A seam of pyarrow."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contentv.base.errors import WorldError
from contentv.base.files import atomic_path, os_errors
from contentv.base.log import get_logger

_log = get_logger(__name__)

_COLUMNS = ("shard", "bytes", "row", "key", "name", "shape", "fault")
_NUMBERS = ("bytes", "row")


@dataclass(frozen=True, slots=True)
class IndexRow:
    """One thing in a shard of so many `bytes`: `row` of its tensors, or -1 and the `fault`.

    `name` and `shape` are for people: the clip's id and frames x height x width, or the caption and
    the lengths at which T5 has read it.
    """

    shard: str
    bytes: int
    row: int
    key: str
    name: str
    shape: str
    fault: str


def write_index(path: Path, rows: list[IndexRow]) -> None:
    """Write the table atomically."""
    from pyarrow import parquet, table

    with atomic_path(path) as part:
        content = {name: [getattr(row, name) for row in rows] for name in _COLUMNS}
        parquet.write_table(table(content, schema=_schema()), part, compression="zstd")


def read_index(path: Path) -> list[IndexRow]:
    """Read the table; without one, or with a damaged one, nothing: the shards tell it again."""
    import pyarrow as pa
    from pyarrow import parquet

    if not path.is_file():
        return []
    try:
        with os_errors(path, "read"), path.open("rb") as file:
            columns = parquet.ParquetFile(file).read(list(_COLUMNS)).cast(_schema()).to_pydict()
    except (pa.ArrowException, WorldError, ValueError) as error:
        _log.warning("%s: damaged (%s); reading the shards instead", path, type(error).__name__)
        return []
    return [IndexRow(*values) for values in zip(*columns.values(), strict=True)]


def _schema() -> Any:  # noqa: ANN401 - pyarrow has no types of its own
    import pyarrow as pa

    return pa.schema([(c, pa.int64() if c in _NUMBERS else pa.string()) for c in _COLUMNS])
