"""What a person says of clips: scores, or which of two is better."""

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contentv.base.errors import UserError
from contentv.base.files import os_errors

_COLUMNS = "needs the columns clip_id and score, or better and worse"


@dataclass(frozen=True)
class Scores:
    """A number for each clip, higher for better; of several for one clip, their mean."""

    by_clip: dict[str, float]

    def __len__(self) -> int:
        return len(self.by_clip)

    @property
    def clips(self) -> set[str]:
        """All clips named."""
        return set(self.by_clip)


@dataclass(frozen=True)
class Comparisons:
    """Pairs of clips, the better one first."""

    pairs: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def clips(self) -> set[str]:
        """All clips named."""
        return {clip for pair in self.pairs for clip in pair}


def read_labels(path: Path) -> Scores | Comparisons:
    """Read a .csv file with a header, or a .jsonl file with an object a line.

    UserError, with the line, when it has other columns or a score that is no number.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise UserError(f"{path}: must be a .csv or .jsonl file")
    with os_errors(path, "read"):
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise UserError(f"{path}: is not UTF-8 ({error.reason})") from error
    rows = list(_csv(path, text) if path.suffix == ".csv" else _jsonl(path, text))
    if not rows:
        raise UserError(f"{path}: holds no labels; {_COLUMNS}")
    if all({"better", "worse"} <= row.keys() for _, row in rows):
        return Comparisons(tuple(_pair(path, *row) for row in rows))
    if all({"clip_id", "score"} <= row.keys() for _, row in rows):
        return _scores(path, rows)
    raise UserError(f"{path}: {_COLUMNS} in every line")


_Line = tuple[int, dict[str, object]]


def _csv(path: Path, text: str) -> Iterator[_Line]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    try:
        for row in reader:
            yield reader.line_num, {str(name): value for name, value in row.items()}
    except csv.Error as error:
        raise UserError(f"{path}: line {reader.line_num}: not CSV ({error})") from error


def _jsonl(path: Path, text: str) -> Iterator[_Line]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}: line {number}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}: line {number}: must be an object")
        yield number, row


def _pair(path: Path, number: int, row: dict[str, object]) -> tuple[str, str]:
    better, worse = row["better"], row["worse"]
    if not (isinstance(better, str) and isinstance(worse, str) and better != worse):
        raise UserError(f"{path}: line {number}: better and worse must name two clips")
    return better, worse


def _scores(path: Path, rows: list[_Line]) -> Scores:
    found: dict[str, list[float]] = {}
    for number, row in rows:
        clip, score = row["clip_id"], row["score"]
        try:
            value = float(score) if isinstance(score, str | int | float) else math.nan
        except ValueError:
            value = math.nan
        if not isinstance(clip, str) or not math.isfinite(value):
            raise UserError(f"{path}: line {number}: score={score}: must be a number")
        found.setdefault(clip, []).append(value)
    return Scores({clip: sum(values) / len(values) for clip, values in found.items()})
