"""Rows as Parquet and back, in files that can tell whether they are damaged. A seam of pyarrow."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from contentv.base.errors import WorldError
from contentv.base.files import atomic_path, os_errors
from contentv.curation.step import Row

Table: TypeAlias = Any
"""A pyarrow table: pyarrow has no types of its own."""

Columns: TypeAlias = Mapping[str, type]
"""What each column holds: float, int, bool, str, or list for a list of float."""

_MARK = b"blake2b:"
_EMPTY = _MARK + b"0" * 32
_SEALED = re.compile(rb"blake2b:[0-9a-f]{32}")
_GROUP = 8192  # rows that are read together: few enough to find one video's among millions


class DamagedError(WorldError):
    """A file of ours was cut short or changed since it was written."""


def table_of(rows: Sequence[Row], columns: Columns) -> Table:
    """Make a table; each row has every column, and a value of None is a cell without one."""
    import pyarrow as pa

    content = {name: [row[name] for row in rows] for name in columns}
    return pa.table(content, schema=_schema(columns))


def rows_of(table: Table) -> list[Row]:
    """Give the rows of a table."""
    return list(table.to_pylist())


def sealed(table: Table, note: object) -> bytes:
    """Give a Parquet file with a `note` (JSON) and a hash over all of its bytes."""
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    with parquet.ParquetWriter(
        sink, table.schema, compression="zstd", store_schema=False
    ) as writer:
        writer.write_table(table, row_group_size=_GROUP)
        writer.add_key_value_metadata({"note": json.dumps(note), "seal": _EMPTY.decode()})
    data: bytes = sink.getvalue().to_pybytes()
    seal = _MARK + hashlib.blake2b(data, digest_size=16).hexdigest().encode()
    place = data.rindex(_EMPTY)
    return data[:place] + seal + data[place + len(seal) :]


def unsealed(path: Path) -> tuple[Table, Any]:
    """Read a sealed file and its note; DamagedError when a bit of it is not as it was written."""
    import pyarrow as pa
    from pyarrow import parquet

    with os_errors(path, "read"):
        data = path.read_bytes()
    seal = next(iter(_SEALED.findall(data)[-1:]), b"")
    empty = _EMPTY.join(data.rsplit(seal, 1)) if seal else data
    if seal != _MARK + hashlib.blake2b(empty, digest_size=16).hexdigest().encode():
        raise DamagedError(f"{path}: damaged")
    file = parquet.ParquetFile(pa.BufferReader(data))
    return file.read(), json.loads(file.metadata.metadata[b"note"])


def read_note(path: Path) -> Any:  # noqa: ANN401 - JSON is anything
    """Read the note of a sealed file, no more; DamagedError when there is none."""
    import pyarrow as pa
    from pyarrow import parquet

    with os_errors(path, "read"), path.open("rb") as file:
        try:
            return json.loads(parquet.ParquetFile(file).metadata.metadata[b"note"])
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{path}: damaged") from error


def rows_where(path: Path, column: str, value: str) -> list[Row]:
    """Read the rows of a big file in which a column it is sorted by has this value."""
    import pyarrow as pa
    from pyarrow import parquet

    with os_errors(path, "read"), path.open("rb") as file:
        try:
            return rows_of(parquet.read_table(file, filters=[(column, "=", value)]))
        except (pa.ArrowException, OSError) as error:
            raise DamagedError(f"{path}: damaged") from error


def write_table(path: Path, table: Table) -> None:
    """Write a table as Parquet, atomically: equal tables give equal bytes."""
    from pyarrow import parquet

    with atomic_path(path) as part:
        parquet.write_table(table, part, compression="zstd", store_schema=False)


def write_rows(path: Path, rows: Sequence[Row], columns: Columns) -> None:
    """Write rows as Parquet, atomically."""
    write_table(path, table_of(rows, columns))


def read_table(path: Path, names: Sequence[str] | None = None) -> Table:
    """Read a Parquet file, or some columns of it; WorldError when it is damaged or has not all."""
    import pyarrow as pa
    from pyarrow import parquet

    # An open file instead of a name: pyarrow would read a name with :// in it from the network.
    with os_errors(path, "read"), path.open("rb") as file:
        try:
            content = parquet.ParquetFile(file)
            lacking = set(names or ()) - set(content.schema_arrow.names)
            if lacking:
                raise WorldError(f"{path}: has no column {', '.join(sorted(lacking))}")
            return content.read(columns=None if names is None else list(names))
        except (pa.ArrowException, OSError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WorldError(f"{path}: damaged, or not Parquet ({why})") from error


def joined(tables: Iterable[Table], columns: Columns) -> Table:
    """Put tables of the same columns under each other; without any, an empty one."""
    import pyarrow as pa

    return pa.concat_tables([_schema(columns).empty_table(), *tables])


def beside(left: Table, right: Table, by: str, names: Sequence[str]) -> Table:
    """Add columns of `right`, found by the value of `by`, which is unique there; None if absent."""
    from pyarrow import compute

    places = compute.index_in(left[by], value_set=right[by])
    for name in names:
        assert name not in left.column_names, f"two steps have a column {name}"
        left = left.append_column(name, right[name].take(places))
    return left


def with_difference(table: Table, name: str, high: str, low: str) -> Table:
    """Add the difference of two columns as a third."""
    from pyarrow import compute

    return table.append_column(name, compute.subtract(table[high], table[low]))


def vectors_of(table: Table, name: str) -> Iterator[NDArray[np.float16] | None]:
    """Give the lists in a column as vectors of 16 bits; None for a cell without one."""
    for chunk in table[name].chunks:
        numbers = chunk.values.to_numpy().astype(np.float16)
        edges = chunk.offsets.to_numpy()
        for first, last, known in zip(edges, edges[1:], chunk.is_valid(), strict=False):
            yield numbers[first:last] if known.as_py() else None


def only(table: Table, column: str, values: Iterable[str], *, invert: bool = False) -> Table:
    """Those rows whose `column` is one of `values`, or is none of them."""
    import pyarrow as pa
    from pyarrow import compute

    found = compute.is_in(table[column], value_set=pa.array(list(values), pa.string()))
    return table.filter(compute.invert(found) if invert else found)


def ordered(table: Table, by: str) -> Table:
    """Sort by a column, equal values in the order they had.

    The result is one chunk, so that the bytes written depend on the rows alone.
    """
    import pyarrow as pa
    from pyarrow import compute

    places = pa.table({"value": table[by], "place": np.arange(table.num_rows)})
    keys = [("value", "ascending"), ("place", "ascending")]
    return table.take(compute.sort_indices(places, sort_keys=keys)).combine_chunks()


def _schema(columns: Columns) -> Table:
    import pyarrow as pa

    types = {
        float: pa.float64(),
        int: pa.int64(),
        bool: pa.bool_(),
        str: pa.string(),
        list: pa.list_(pa.float32()),
    }
    return pa.schema([(name, types[kind]) for name, kind in columns.items()])
