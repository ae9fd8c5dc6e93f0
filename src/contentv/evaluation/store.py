"""Rows and strips of finished batches on disk: whole or absent, so that a stopped run goes on."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import ValidationError

from contentv.base.config import describe_validation_error
from contentv.base.errors import WorldError
from contentv.base.files import atomic_path, os_errors, write_json
from contentv.base.types import Frame
from contentv.evaluation.scoring import Row


class Store:
    """One model's rows, a JSONL file per batch, the strips stacked in a PNG of the same name.

    Other settings are another folder: rows that cannot be compared never meet.
    """

    def __init__(self, parent: Path, label: str, settings: Mapping[str, Any]) -> None:
        text = json.dumps(settings, sort_keys=True)
        self.folder = parent / f"{label}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
        self._places: dict[str, tuple[Path, int]] = {}
        self.rows: dict[str, Row] = {}
        write_json(self.folder / "settings.json", dict(settings))
        for path in sorted(self.folder.glob("[!.]*.jsonl")):
            self._remember(path, _read_rows(path))

    def add(self, rows: Sequence[Row], strips: Iterable[Frame]) -> None:
        """Write a finished batch; strips [h w 3] of one size, one for each row."""
        path = self.folder / f"{rows[0].name}.jsonl"
        with atomic_path(path.with_suffix(".png")) as part:
            Image.fromarray(np.concatenate(list(strips))).save(part, compress_level=3)
        # The rows come last: where they are, their strips are.
        with atomic_path(path) as part:
            part.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
        self._remember(path, rows)

    def strip(self, name: str) -> Frame:
        """The strip of a row."""
        path, place = self._places[name]
        picture = path.with_suffix(".png")
        with os_errors(picture, "read"), Image.open(picture) as image:
            stacked = np.asarray(image.convert("RGB"), np.uint8)
        height = len(stacked) // sum(path == other for other, _ in self._places.values())
        return stacked[place * height : (place + 1) * height]

    def _remember(self, path: Path, rows: Sequence[Row]) -> None:
        for place, row in enumerate(rows):
            self.rows[row.name] = row
            self._places[row.name] = (path, place)


def _read_rows(path: Path) -> list[Row]:
    with os_errors(path, "read"):
        lines = path.read_text(encoding="utf-8").splitlines()
    try:
        return [Row.model_validate_json(line) for line in lines]
    except ValidationError as error:
        reason = describe_validation_error(error)
        raise WorldError(f"{path}: not rows of an evaluation ({reason}); remove it") from error
