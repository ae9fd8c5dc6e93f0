"""The tables that a run leaves in its folder: what is in them, and how to read them.

* `videos.parquet`: a row for each file found, by `video_id`: `uri` is where it lies (`path_of`),
  `uris` all places with the same bytes, one a line, `source` the folder asked for, `size` in bytes,
  then `chain.VIDEO_COLUMNS`. `status` is ok, partial (a part of it could not be decoded; what was
  seen counts) or failed, with `error_class` (see `MediaError`) and `error`.
* `clips.parquet`: a row for each clip and each picture of a video that is not failed, by `clip_id`:
  `video_id`, `uri`, `width`, `height` and `fps` of the video, `chain.SPAN_COLUMNS`, `duration` in
  seconds (0 for a picture), the crop, every column of every step (null: could not be measured), and
  `dup_of` ("" for what is no duplicate), `dup_sim`, `dup_level`.
* `embeddings.parquet`: `clip_id` and `embedding`, in the order of the clips.

Rows are sorted by name. The same files and settings give the same bytes, however many processes or
machines have worked. Ask in SQL with `database.opened({"clips": folder / CLIPS})`, or read columns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from contentv.base.errors import UserError
from contentv.curation.tables import read_table

VIDEOS, CLIPS, EMBEDDINGS = "videos.parquet", "clips.parquet", "embeddings.parquet"
STATE = "catalogue.json"
"""What the tables were made of; written last, so that without it they may not belong together."""


def read_columns(folder: Path, table: str, names: Sequence[str]) -> dict[str, list[Any]]:
    """Read columns of a catalogue's table, row by row in its order.

    UserError when there is no catalogue, WorldError when the table is damaged or lacks a column.
    """
    if not (folder / STATE).is_file():
        raise UserError(f"{folder}: has no catalogue; make one with contentv curate run")
    content: dict[str, list[Any]] = read_table(folder / table, names).to_pydict()
    return content
