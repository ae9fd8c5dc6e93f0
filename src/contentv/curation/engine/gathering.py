"""Puts the parts of all videos together as the tables of a catalogue, and marks duplicates."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contentv.base.errors import ContentVError
from contentv.base.files import read_json, remove, write_json
from contentv.curation.catalogue import CLIPS, EMBEDDINGS, STATE, VIDEOS
from contentv.curation.duplicates.dedup import COLUMNS as DUPLICATE_COLUMNS
from contentv.curation.duplicates.dedup import ClipVector, duplicates
from contentv.curation.engine.chain import SPAN_COLUMNS, VIDEO_COLUMNS, Chain
from contentv.curation.engine.parts import ID, Parts
from contentv.curation.engine.scan import Source, uri_of
from contentv.curation.settings import DedupSettings
from contentv.curation.step import Row
from contentv.curation.tables import (
    Columns,
    Table,
    beside,
    joined,
    only,
    ordered,
    table_of,
    vectors_of,
    with_difference,
    write_table,
)

VECTOR, HASH, SCORE = "embedding", "phash", "aes_video"
_VERSION = 2  # of the tables: goes up whenever the same parts make other tables
_FILE_COLUMNS: Columns = {ID: str, "uri": str, "uris": str, "source": str, "size": int}
_SCORED: Columns = {"clip_id": str, SCORE: float}
_OF_VIDEO = ("uri", "width", "height", "fps")


@dataclass(frozen=True)
class Judging:
    """What is said of clips when all are there: duplicates, and beauty by a head if there is one.

    `judge` gives a score for each of ``[n d]`` vectors; `judge_id` names it: equal names, equal
    scores.
    """

    dedup: DedupSettings
    judge: Callable[[NDArray[np.float32]], NDArray[np.float64]] | None = None
    judge_id: str = ""


def gather(
    out: Path, videos: Sequence[Source], chain: Chain, parts: Parts, judging: Judging
) -> bool:
    """Write the tables; False when there was nothing new to write.

    Parts that turn out to be damaged are removed and counted by `parts`; their values are null.
    """
    state = {"made_of": _fingerprint(videos, chain, parts, judging)}
    if _state(out) == state and all((out / name).is_file() for name in (VIDEOS, CLIPS, EMBEDDINGS)):
        return False
    remove(out / STATE)
    files = table_of([_file_row(video) for video in videos], _FILE_COLUMNS)
    seen = parts.table(chain.video_key, VIDEO_COLUMNS, {video.video_id for video in videos})
    table = beside(files, seen, ID, list(VIDEO_COLUMNS))
    write_table(out / VIDEOS, ordered(table, ID))
    clips = ordered(_clips(table, chain, parts), "clip_id")
    marks = table_of(_marks(clips, judging.dedup), DUPLICATE_COLUMNS)
    names = [name for name in DUPLICATE_COLUMNS if name != "clip_id"]
    clips = beside(clips, table_of(_scores(clips, judging), _SCORED), "clip_id", [SCORE])
    write_table(out / EMBEDDINGS, clips.select(["clip_id", VECTOR]))
    write_table(out / CLIPS, beside(clips.drop_columns([VECTOR]), marks, "clip_id", names))
    if not parts.damaged:
        write_json(out / STATE, state)
    return True


def _clips(videos: Table, chain: Chain, parts: Parts) -> Table:
    """A row for each span of the videos that could be seen, with the scores of every step."""
    seen = only(videos, "status", ("ok", "partial"))
    names = set(seen[ID].to_pylist())
    clips = beside(parts.table(chain.shots.key, SPAN_COLUMNS, names), seen, ID, _OF_VIDEO)
    clips = with_difference(clips, "duration", "end", "start")
    for key, columns in chain.scores.items():
        scores = parts.table(key, chain.columns[key], names)
        clips = beside(clips, scores, "clip_id", list(columns))
    if VECTOR not in clips.column_names:
        empty = joined([], {"clip_id": str, VECTOR: list})
        clips = beside(clips, empty, "clip_id", [VECTOR])
    return clips


def _marks(clips: Table, config: DedupSettings) -> list[Row]:
    """A row for each clip; one without a vector is no duplicate. Of two, more pixels stay."""
    names = ["clip_id", ID, "kind", "width", "height", "crop_width", "crop_height"]
    hashes = clips[HASH].to_pylist() if HASH in clips.column_names else [None] * clips.num_rows
    known, unknown = [], []
    vectors = vectors_of(clips, VECTOR)
    for row, phash, vector in zip(clips.select(names).to_pylist(), hashes, vectors, strict=True):
        if vector is None:
            unknown.append(
                {"clip_id": row["clip_id"], "dup_of": "", "dup_sim": None, "dup_level": ""}
            )
            continue
        pixels = row["width"] * row["crop_width"] * row["height"] * row["crop_height"]
        known.append(ClipVector(row["clip_id"], row[ID], row["kind"], vector, phash or "", pixels))
    return [*duplicates(known, config), *unknown] if known else unknown


def _scores(clips: Table, judging: Judging) -> list[Row]:
    """A row for each clip; null for one without a vector, and for all without a judge."""
    names, vectors = clips["clip_id"].to_pylist(), list(vectors_of(clips, VECTOR))
    known = [i for i, vector in enumerate(vectors) if vector is not None]
    rows: list[Row] = [{"clip_id": name, SCORE: None} for name in names]
    if judging.judge and known:
        scores = judging.judge(np.stack([np.asarray(vectors[i], np.float32) for i in known]))
        for i, score in zip(known, scores.tolist(), strict=True):
            rows[i][SCORE] = score
    return rows


def _file_row(video: Source) -> Row:
    uris = [file.uri for file in video.files]
    return {
        ID: video.video_id,
        "uri": uris[0],
        "uris": "\n".join(uris),
        "source": uri_of(video.files[0].source),
        "size": video.files[0].stamp.size,
    }


def _fingerprint(videos: Sequence[Source], chain: Chain, parts: Parts, judging: Judging) -> str:
    digest = hashlib.blake2b(digest_size=16)
    said = [
        f"{_VERSION}",
        judging.dedup.model_dump_json(),
        judging.judge_id,
        *(f"{_file_row(video)}" for video in videos),
    ]
    for key in chain.columns:
        said += [key, *parts.stamps(key)]
    for line in said:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()


def _state(out: Path) -> object:
    try:
        return read_json(out / STATE)
    except ContentVError:
        return None
