"""Which bucket a clip fills with the pixels and frames it has: nothing is enlarged.

A bucket depends on the size of the cropped picture and on the number of frames, each by itself, so
that a million clips need as many answers as there are sizes, and lengths, among them.
"""

from contentv.curation.database import Database
from contentv.curation.selection.policy import BUCKET
from contentv.curation.selection.rules import Check, Columns, verdict
from contentv.data.buckets import BucketConfig, Buckets, Misfit, Size

GEOMETRY = ("kind", "width", "height", "fps", "duration", "crop_width", "crop_height")
"""Columns of the clips that decide on a bucket."""

_ENDLESS = 10**9
_UNKNOWN = "unmeasured"
# A clip without a crop keeps its whole picture. A picture has one frame.
_WIDE, _HIGH = (
    f"TRY_CAST(round({side} * coalesce(crop_{side}, 1)) AS BIGINT)" for side in ("width", "height")
)
_LONG = "CASE WHEN kind = 'picture' THEN 1 ELSE TRY_CAST(round(duration * fps) AS BIGINT) END"

BUCKET_CHECK = Check(
    BUCKET,
    "misfit IS NOT NULL",
    verdict(
        BUCKET,
        "to_json(concat(long, 'x', high, 'x', wide, CASE WHEN fps > 0 THEN concat('@', fps) END))",
        "CASE WHEN misfit IS NULL THEN 'fits' ELSE 'misfit' END",
        "to_json(coalesce(misfit, bucket))",
        "NULL",
    ),
)
"""Needs the columns that `measured` adds."""


def check_geometry(columns: Columns) -> None:
    """Raise UserError when the catalogue cannot say how large a clip is."""
    for column in GEOMETRY:
        columns.family(column, BUCKET)


def fitted(database: Database, subjects: str, config: BucketConfig) -> str:
    """SQL of the clips in `subjects` with `wide`, `high`, `long`, and `bucket` or `misfit`."""
    buckets = Buckets(config)
    measured = f"(SELECT *, {_WIDE} AS wide, {_HIGH} AS high, {_LONG} AS long FROM {subjects})"  # noqa: S608
    _fill_sizes(database, measured, buckets)
    _fill_lengths(database, measured, buckets)
    return f"""
        SELECT m.*,
            CASE WHEN coalesce(l.unfit, s.unfit) IS NULL AND l.frames > 0 AND s.wide > 0
                 THEN concat(l.frames, 'x', s.frame) END AS bucket,
            CASE WHEN bucket IS NULL THEN coalesce(l.unfit, s.unfit, '{_UNKNOWN}') END AS misfit
        FROM {measured} AS m
        LEFT JOIN sizes AS s
            ON s.picture = (m.kind = 'picture') AND s.wide = m.wide AND s.high = m.high
        LEFT JOIN lengths AS l
            ON l.picture = (m.kind = 'picture') AND l.long = m.long AND l.fps = m.fps
    """  # noqa: S608 - made of names of ours


def in_space(buckets: Buckets, *, picture: bool, width: int, height: int) -> tuple[int, int] | str:
    """Height and width of the bucket, were the clip long enough; or why there is none."""
    size = Size(_ENDLESS, height, width, buckets.config.fps, picture)
    found = buckets.fit(size)
    return found.reason if isinstance(found, Misfit) else (found.bucket.height, found.bucket.width)


def in_time(buckets: Buckets, *, picture: bool, frames: int, fps: float) -> int | str:
    """Frames of the bucket, were the clip of its very shape; or why there is none."""
    shape = buckets.shapes[-1]
    found = buckets.fit(Size(frames, shape.height, shape.width, fps, picture))
    return found.reason if isinstance(found, Misfit) else found.bucket.frames


def _fill_sizes(database: Database, measured: str, buckets: Buckets) -> None:
    seen = database.rows(
        f"SELECT DISTINCT kind = 'picture' AS picture, wide, high FROM {measured} "  # noqa: S608
        "WHERE wide > 0 AND high > 0"
    )
    rows = []
    for row in seen:
        picture, wide, high = row["picture"], row["wide"], row["high"]
        found = in_space(buckets, picture=picture, width=wide, height=high)
        fits = not isinstance(found, str)
        rows.append((picture, wide, high, f"{found[0]}x{found[1]}" if fits else "", _fault(found)))
    columns = {"picture": "BOOLEAN", "wide": "BIGINT", "high": "BIGINT", "frame": "VARCHAR"}
    database.fill("sizes", {**columns, "unfit": "VARCHAR"}, rows)


def _fill_lengths(database: Database, measured: str, buckets: Buckets) -> None:
    seen = database.rows(
        f"SELECT DISTINCT kind = 'picture' AS picture, long, fps FROM {measured} "  # noqa: S608
        "WHERE long > 0 AND fps IS NOT NULL"
    )
    rows = []
    for row in seen:
        picture, frames, fps = row["picture"], row["long"], row["fps"]
        found = in_time(buckets, picture=picture, frames=frames, fps=fps)
        rows.append((picture, frames, fps, 0 if isinstance(found, str) else found, _fault(found)))
    columns = {"picture": "BOOLEAN", "long": "BIGINT", "fps": "DOUBLE", "frames": "BIGINT"}
    database.fill("lengths", {**columns, "unfit": "VARCHAR"}, rows)


def _fault(found: object) -> str | None:
    return found if isinstance(found, str) else None
