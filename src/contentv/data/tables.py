"""Data sets described by a table: metadata.csv, .jsonl or .json, and pairs of text files."""

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contentv.base.errors import UserError
from contentv.base.files import os_errors
from contentv.data.entries import LONG_NAMES, PATH_NAMES, SHORT_NAMES, captions_of, new_clip
from contentv.data.manifest import Clip

TABLE_SUFFIXES = (".csv", ".jsonl", ".json")


def read_table(file: Path) -> list[Clip]:
    """Read a table of file names and captions; a row that makes no sense becomes a faulty clip.

    UserError when there is no column of file names or of captions, or the file is not of its kind.
    """
    rows = list(_READERS[file.suffix.lower()](file, _text(file)))
    names = dict.fromkeys(name for row in rows if isinstance(row, Mapping) for name in row)
    _need(file, names, PATH_NAMES, "file names")
    _need(file, names, (*SHORT_NAMES, *LONG_NAMES), "captions")
    return [_clip(file, number, row) for number, row in enumerate(rows, start=1)]


def read_pair(videos: Path, prompts: Path) -> list[Clip]:
    """Read file names from one text file and their captions from the same lines of another."""
    paths, captions = (_text(file).rstrip("\n").split("\n") for file in (videos, prompts))
    if len(paths) != len(captions):
        raise UserError(
            f"{videos} has {len(paths)} lines and {prompts.name} {len(captions)}: "
            "each line of one belongs to the same line of the other"
        )
    return [
        _named(path, (" ".join(text.split()), ""), videos.name, number)
        for number, (path, text) in enumerate(zip(paths, captions, strict=True), start=1)
    ]


def _clip(file: Path, number: int, row: Mapping[str, Any] | str) -> Clip:
    if isinstance(row, str):
        return _faulty(file.name, number, row)
    path = next((row[name] for name in PATH_NAMES if row.get(name)), "")
    if not isinstance(path, str):
        return _faulty(file.name, number, "the file name is not text")
    # What csv keeps under None stood right of the last column.
    fault = "has more values than columns; put quotes around the caption" if None in row else ""
    return _named(path, captions_of(row), file.name, number, fault)


def _named(path: str, captions: tuple[str, str], source: str, number: int, fault: str = "") -> Clip:
    if not path.strip():
        return _faulty(source, number, "names no file")
    return new_clip(path, *captions, source=source, fault=fault)


def _faulty(source: str, number: int, fault: str) -> Clip:
    return Clip(f"{source}:{number}", "", "video", source=source, fault=f"row {number}: {fault}")


def _rows_of_csv(file: Path, text: str) -> Iterator[Mapping[str, Any]]:
    try:
        yield from csv.DictReader(text.splitlines(keepends=True), strict=True)
    except csv.Error as error:
        raise UserError(f"{file}: not CSV ({error})") from error


def _rows_of_jsonl(file: Path, text: str) -> Iterator[Mapping[str, Any] | str]:  # noqa: ARG001
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield row if isinstance(row, dict) else "is not a JSON object"


def _rows_of_json(file: Path, text: str) -> Iterator[Mapping[str, Any] | str]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not JSON ({error})") from error
    if isinstance(content, dict) and all(isinstance(value, str) for value in content.values()):
        content = [{"path": path, "caption": text} for path, text in content.items()]
    if isinstance(content, dict) and len(content) == 1:  # {"data": [...]}
        content = next(iter(content.values()))
    if not isinstance(content, list):
        rule = "must be a list of objects, or an object from file names to captions"
        raise UserError(f"{file}: {rule}")
    yield from (row if isinstance(row, dict) else "is not a JSON object" for row in content)


_READERS = {".csv": _rows_of_csv, ".jsonl": _rows_of_jsonl, ".json": _rows_of_json}


def _text(file: Path) -> str:
    with os_errors(file, "read"):
        data = file.read_bytes()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 text; save it as UTF-8") from error


def _need(file: Path, names: Mapping[str, object], known: tuple[str, ...], what: str) -> None:
    if not any(name in names for name in known):
        found = ", ".join(str(name) for name in names) or "none"
        raise UserError(f"{file}: no column of {what}; has {found}; name one {known[0]}")
