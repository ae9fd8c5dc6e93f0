"""Asks questions of Parquet files in SQL. The only user of DuckDB."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from contentv.base.errors import UserError, WorldError
from contentv.base.files import atomic_path, os_errors

if TYPE_CHECKING:
    import duckdb

Values: TypeAlias = Sequence[object]


class Database:
    """Tables of Parquet files under names of ours; made by `opened`."""

    def __init__(self, connection: "duckdb.DuckDBPyConnection") -> None:
        self._connection = connection

    def rows(self, sql: str, values: Values = ()) -> list[dict[str, Any]]:
        """Give the rows of a query; each `?` in it stands for one of `values`."""
        found = self._connection.execute(sql, list(values))
        names = [str(column[0]) for column in found.description or ()]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def run(self, sql: str, values: Values = ()) -> None:
        """Carry out a statement that gives nothing back."""
        self._connection.execute(sql, list(values))

    def types(self, table: str) -> dict[str, str]:
        """DuckDB's type of each column, such as DOUBLE, VARCHAR, BOOLEAN or FLOAT[]."""
        found = self.rows(f"DESCRIBE {name(table)}")
        return {str(row["column_name"]): str(row["column_type"]) for row in found}

    def fill(self, table: str, columns: Mapping[str, str], rows: Sequence[Values]) -> None:
        """Make a table of rows; `columns` are names and DuckDB's types."""
        cells = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in columns]
        fields = (f"unnest(CAST(? AS {kind}[])) AS {name(key)}" for key, kind in columns.items())
        self.run(f"CREATE OR REPLACE TEMP TABLE {name(table)} AS SELECT {', '.join(fields)}", cells)

    def write(self, sql: str, path: Path) -> None:
        """Write a query's rows as Parquet, whole or not at all."""
        with atomic_path(path) as part:
            target = text(str(part.absolute()))
            self.run(f"COPY ({sql}) TO {target} (FORMAT parquet, COMPRESSION zstd)")


@contextmanager
def opened(tables: Mapping[str, Path]) -> Iterator[Database]:
    """Open Parquet files as tables. What goes wrong in a file meanwhile is a WorldError.

    UserError when DuckDB is not installed; WorldError for a file that is missing or damaged.
    """
    try:
        import duckdb
    except ImportError as error:
        raise UserError("a catalogue needs pip install 'contentv[curate]'") from error
    with duckdb.connect(config=_config()) as connection:
        try:
            for table, path in tables.items():
                _show(connection, table, path)
            yield Database(connection)
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            places = ", ".join(str(path) for path in tables.values())
            reason = str(error).strip().splitlines()[0]
            raise WorldError(f"{places}: damaged, or not Parquet ({reason})") from error


def name(identifier: str) -> str:
    """Quote a name for SQL."""
    return '"' + identifier.replace('"', '""') + '"'


def text(content: str) -> str:
    """Quote text for SQL."""
    return "'" + content.replace("'", "''") + "'"


def _config() -> dict[str, str | bool | int | float | list[str]]:
    # Nothing is fetched from the network, and what does not fit into memory goes where such
    # things go, not into the folder the command was given in.
    return {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "temp_directory": tempfile.gettempdir(),
    }


def _show(connection: "duckdb.DuckDBPyConnection", table: str, path: Path) -> None:
    with os_errors(path, "read"), path.open("rb"):
        # A path from the root is never an address, and its * and ? are letters.
        place = "".join(f"[{c}]" if c in "*?[" else c for c in str(path.absolute()))
    connection.execute(f"CREATE VIEW {name(table)} AS SELECT * FROM read_parquet({text(place)})")  # noqa: S608
