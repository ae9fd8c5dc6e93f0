import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contentv.base.errors import WorldError
from contentv.curation.step import Row
from contentv.curation.tables import (
    Columns,
    DamagedError,
    beside,
    joined,
    only,
    ordered,
    read_note,
    read_table,
    rows_of,
    sealed,
    table_of,
    unsealed,
    vectors_of,
    with_difference,
    write_table,
)

COLUMNS: Columns = {"name": str, "count": int, "score": float, "is_good": bool, "box": list}
VALUES = st.fixed_dictionaries(
    {
        "name": st.none() | st.text(),
        "count": st.none() | st.integers(-(2**62), 2**62),
        "score": st.none() | st.floats(allow_nan=False),
        "is_good": st.none() | st.booleans(),
        "box": st.none() | st.lists(st.floats(allow_nan=False, width=32)),
    }
)
ROWS: list[Row] = [
    {"name": "b", "count": 1, "score": 0.5, "is_good": True, "box": [0.25, 1.0]},
    {"name": "a", "count": None, "score": None, "is_good": None, "box": None},
]


@settings(deadline=None)  # pyarrow is imported on the way
@given(st.lists(VALUES))
def test_rows_come_back_as_they_were(rows: list[Row]) -> None:
    assert rows_of(table_of(rows, COLUMNS)) == rows


@settings(deadline=None)
@given(st.lists(VALUES, max_size=3), st.lists(st.text()))
def test_a_sealed_file_gives_rows_and_note(rows: list[Row], note: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "part")
        path.write_bytes(sealed(table_of(rows, COLUMNS), note))
        table, again = unsealed(path)
        assert (rows_of(table), again, read_note(path)) == (rows, note, note)


def test_flipped_bits_and_cuts_are_found(tmp_path: Path) -> None:
    data = sealed(table_of(ROWS, COLUMNS), ["v"])
    path = tmp_path / "part"
    for place in [*range(0, len(data), 11), len(data) - 1]:
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(DamagedError, match=r"part: damaged$"):
            unsealed(path)
        path.write_bytes(data[:place])
        with pytest.raises(DamagedError):
            unsealed(path)


def test_rows_that_lack_a_column_are_our_mistake() -> None:
    with pytest.raises(KeyError, match="box"):
        table_of([{"name": "a", "count": 1, "score": 1.0, "is_good": True}], COLUMNS)


def test_tables_are_joined_by_a_name() -> None:
    left = table_of([{"id": "b"}, {"id": "x"}, {"id": "a"}], {"id": str})
    right = table_of([{"id": "a", "v": 1.0}, {"id": "b", "v": None}], {"id": str, "v": float})
    found = rows_of(beside(left, right, "id", ["v"]))
    assert found == [{"id": "b", "v": None}, {"id": "x", "v": None}, {"id": "a", "v": 1.0}]
    with pytest.raises(AssertionError, match="two steps have a column v"):
        beside(right, right, "id", ["v"])


def test_rows_are_chosen_ordered_and_subtracted() -> None:
    columns: Columns = {"id": str, "low": float, "high": float}
    rows: list[Row] = [{"id": i, "low": n, "high": 3.0} for n, i in enumerate("cabca")]
    table = joined([table_of(rows[:2], columns), table_of(rows[2:], columns)], columns)
    assert ordered(table, "id")["low"].to_pylist() == [1.0, 4.0, 2.0, 0.0, 3.0]
    assert only(table, "id", {"b", "c"})["low"].to_pylist() == [0.0, 2.0, 3.0]
    assert with_difference(table, "d", "high", "low")["d"].to_pylist() == [3.0, 2.0, 1.0, 0.0, -1.0]


def test_vectors_keep_their_rows() -> None:
    rows: list[Row] = [{"v": [1.0, 2.0]}, {"v": None}, {"v": [3.0, 4.0]}]
    table = joined([table_of(rows[:1], {"v": list}), table_of(rows[1:], {"v": list})], {"v": list})
    found = [None if vector is None else vector.tolist() for vector in vectors_of(table, "v")]
    assert found == [[1.0, 2.0], None, [3.0, 4.0]]
    kinds = {vector.dtype for vector in vectors_of(table, "v") if vector is not None}
    assert kinds == {np.dtype(np.float16)}


def test_equal_tables_are_equal_files(tmp_path: Path) -> None:
    columns: Columns = {"name": str}
    rows: list[Row] = [{"name": "a"}, {"name": "b"}]
    write_table(tmp_path / "one", ordered(table_of(rows, columns), "name"))
    parts = [table_of(rows[1:], columns), table_of(rows[:1], columns)]
    write_table(tmp_path / "two", ordered(joined(parts, columns), "name"))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_that_is_no_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no, it is not")
    with pytest.raises(WorldError, match="damaged, or not Parquet"):
        read_table(tmp_path / "t.parquet")
    write_table(tmp_path / "t.parquet", table_of(ROWS, COLUMNS))
    with pytest.raises(WorldError, match="has no column colour"):
        read_table(tmp_path / "t.parquet", ["name", "colour"])
