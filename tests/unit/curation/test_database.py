from pathlib import Path

import pytest

from catalogues import write_table
from contentv.base.errors import WorldError
from contentv.curation.database import name, opened, text

ODD = ['it\'s a "clip"', "", "\n", "; DROP TABLE clips", "ü 🎬", "?"]


def test_odd_text_is_only_text(tmp_path: Path) -> None:
    write_table(tmp_path / "odd.parquet", [{"a b": value} for value in ODD], {})
    with opened({"odd": tmp_path / "odd.parquet"}) as database:
        for value in ODD:
            (row,) = database.rows(
                f"SELECT count(*) AS n FROM odd WHERE {name('a b')} = ?", [value]
            )
            assert row == {"n": 1}
            (row,) = database.rows(f"SELECT {text(value)} AS {name(value or 'empty')}")
            assert list(row.values()) == [value]


@pytest.mark.parametrize("folder", ["a*b", "what?", "[set]", "it's", 'say "so"', "ü 🎬"])
def test_odd_places_hold_the_file_of_that_name_only(tmp_path: Path, folder: str) -> None:
    write_table(tmp_path / folder / "t.parquet", [{"n": 1}], {})
    write_table(tmp_path / "aXb" / "t.parquet", [{"n": 2}], {})
    with opened({"t": tmp_path / folder / "t.parquet"}) as database:
        assert database.rows("SELECT n FROM t") == [{"n": 1}]
        database.write("SELECT n + 1 AS n FROM t", tmp_path / folder / "more.parquet")
    with opened({"t": tmp_path / folder / "more.parquet"}) as database:
        assert database.rows("SELECT n FROM t") == [{"n": 2}]


def test_rows_become_a_table(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", [{"n": 1}], {})
    columns = {"n": "BIGINT", "word": "VARCHAR", "yes": "BOOLEAN"}
    rows = [(1, "a", True), (2, None, False), (3, "it's", None)]
    with opened({"t": tmp_path / "t.parquet"}) as database:
        database.fill("made", columns, rows)
        assert [tuple(row.values()) for row in database.rows("SELECT * FROM made")] == rows
        database.fill("made", columns, [])
        assert database.rows("SELECT * FROM made") == []
        assert database.types("made") == columns


def test_what_is_no_table_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(b"PAR1 this is none PAR1")
    with pytest.raises(WorldError, match="damaged, or not Parquet") as caught:  # noqa: SIM117
        with opened({"t": tmp_path / "t.parquet"}):
            pass
    assert "\n" not in str(caught.value)
    with pytest.raises(WorldError, match="no such file"):  # noqa: SIM117
        with opened({"t": tmp_path / "absent.parquet"}):
            pass
