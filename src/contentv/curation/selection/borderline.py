"""Clips that a rule nearly kept or nearly lost, to be looked at by a person."""

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contentv.base.errors import MediaError
from contentv.curation.database import Database, name, text
from contentv.curation.engine.scan import path_of
from contentv.curation.selection.policy import Rule
from contentv.curation.selection.rules import known_number, number
from contentv.curation.selection.select import Selection
from contentv.video.sandbox import arrays_from_child

_NEAR = 10  # of so many times the clips wanted, the nearest to a threshold, some are drawn
_SIDE = 192
_SECONDS = 20.0
_MEMORY = 2 << 30


@dataclass(frozen=True)
class Example:
    """A clip at a rule's border: its value there, and what to show of it."""

    clip: str
    value: object
    lost: bool
    fate: str | None
    video: str
    uri: str
    kind: str
    moment: int
    crop: tuple[float, float, float, float] | None


def examples(
    database: Database, chosen: Selection, place: int, rule: Rule, count: int
) -> list[Example]:
    """Draw `count` clips near the rule's thresholds, by their ids, the lowest value first.

    Of a rule without thresholds: of those that it loses. The same catalogue gives the same clips.
    """
    column, near, where = name(rule.column), "", f"lost_{place}"
    if rule.is_range:
        value = known_number(rule.column)
        bounds = [number(bound) for bound in (rule.min, rule.max) if bound is not None]
        gaps = ", ".join(f"abs(({value}) - {bound})" for bound in bounds)
        near = f"ORDER BY least({gaps}), clip_id LIMIT {count * _NEAR}"
        where = f"({value}) IS NOT NULL AND ({chosen.checks[place].applies})"
    crops = ", ".join(f"n.{crop}" for crop in chosen.crops)
    found = database.rows(f"""
        SELECT n.clip_id, n.{column} AS value, n.lost_{place} AS lost, {chosen.reason("n")} AS fate,
            c.video_id, c.uri, v.kind, (c.start_pts + c.end_pts) // 2 AS moment
            {", " if crops else ""}{crops}
        FROM (SELECT * FROM {chosen.table} WHERE {where} {near}) AS n
        JOIN clips AS c USING (clip_id) LEFT JOIN videos AS v ON v.video_id = c.video_id
        ORDER BY md5(concat(n.clip_id, {text(rule.rule)})), n.clip_id LIMIT {count}
    """)  # noqa: S608 - made of quoted names and text
    drawn = [_example(row, chosen.crops) for row in found]
    return sorted(drawn, key=lambda e: (e.value, e.clip) if rule.is_range else (0, e.clip))


def pictures(shown: Sequence[Example]) -> tuple[dict[tuple[str, int], str], dict[str, str]]:
    """Read a still of each example, one child process a source.

    Gives data addresses of JPEG by (video, moment), and by video why it has none.
    """
    wanted: defaultdict[tuple[str, str, str], set[int]] = defaultdict(set)
    for example in shown:
        wanted[example.video, example.uri, example.kind].add(example.moment)
    found: dict[tuple[str, int], str] = {}
    faults: dict[str, str] = {}
    for (video, uri, kind), moments in sorted(wanted.items()):
        if not path_of(uri).is_file():
            faults[video] = "the source is gone"
            continue
        arguments = {
            "path": str(path_of(uri)), "kind": kind, "moments": sorted(moments), "side": _SIDE,
        }  # fmt: skip
        try:
            for item in arrays_from_child(
                "contentv.video.stills:stills",
                arguments,
                seconds=_SECONDS,
                memory=_MEMORY,
                max_bytes=3 * _SIDE * _SIDE,
            ):
                assert isinstance(item, tuple)
                found[video, int(item[1]["moment"])] = _jpeg(item[0])
        except MediaError as error:
            faults[video] = str(error)
    return found, faults


def _example(row: Mapping[str, Any], crops: tuple[str, ...]) -> Example:
    sides = [row[crop] for crop in crops]
    whole = len(sides) == 4 and None not in sides
    return Example(
        clip=str(row["clip_id"]),
        value=row["value"],
        lost=bool(row["lost"]),
        fate=row["fate"],
        video=str(row["video_id"]),
        uri=str(row["uri"]),
        kind=str(row["kind"]),
        moment=int(row["moment"]),
        crop=(sides[0], sides[1], sides[2], sides[3]) if whole else None,
    )


def _jpeg(pixels: Any) -> str:  # noqa: ANN401 - an array of any kind
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
