"""`contentv curate explain`: all that is known of a clip, and each rule that decides on it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from contentv.base.errors import UserError
from contentv.curation.database import Database
from contentv.curation.selection.policy import load_policy
from contentv.curation.selection.questions import ExplainConfig
from contentv.curation.selection.select import Selection, catalogue, decide, decisions

_SHOWN = 8


@dataclass(frozen=True)
class Verdict:
    """What a rule says of the clip; see `rules.Check`."""

    rule: str
    value: object
    op: str
    threshold: object
    margin: float | None
    passed: bool

    def __str__(self) -> str:
        margin = "" if self.margin is None else f", margin {self.margin:+.4g}"
        rule = f"({self.op} {_plain(self.threshold)}{margin})"
        return f"{'pass' if self.passed else 'LOST'}  {self.rule}: {_plain(self.value)} {rule}"


@dataclass(frozen=True)
class Explanation:
    """A clip, where it stands in the policy, and why.

    `verdicts` are of the rules that apply to it, in order; `copies` are clips that are duplicates
    of it, `original` the one it is a duplicate of, with the rule that loses that one, if any does.
    """

    policy: str
    scores: Mapping[str, object]
    video: Mapping[str, object]
    verdicts: tuple[Verdict, ...]
    bucket: str | None
    rank: int | None
    kept: int
    original: tuple[str, str | None] | None
    copies: tuple[str, ...]

    @property
    def first_reason(self) -> str | None:
        """The rule that loses the clip; None when it is kept."""
        return next((verdict.rule for verdict in self.verdicts if not verdict.passed), None)

    def __str__(self) -> str:
        scores = self.scores
        place = f", number {self.rank} of {self.kept}" if self.rank else ""
        fate = f"lost by {self.first_reason}" if self.first_reason else f"kept{place}"
        shown = {key: value for key, value in scores.items() if key != "clip_id"}
        return "\n".join(
            [
                f"{scores['clip_id']}: {self.policy}: {fate}",
                *(f"  {verdict}" for verdict in self.verdicts),
                f"  bucket: {self.bucket or 'none'}",
                *self._duplicates(),
                "scores:",
                *(f"  {key}: {_plain(value)}" for key, value in shown.items()),
                "video:",
                *(f"  {key}: {_plain(value)}" for key, value in self.video.items()),
            ]
        )

    def _duplicates(self) -> list[str]:
        lines = []
        if self.original:
            name, reason = self.original
            fate = f"lost by {reason}" if reason else "kept"
            lines.append(f"  duplicate of {name}, which is {fate}")
        if self.copies:
            more = ", ..." if len(self.copies) > _SHOWN else ""
            lines.append(f"  its duplicates: {', '.join(self.copies[:_SHOWN])}{more}")
        return lines


def run(config: ExplainConfig) -> Explanation:
    """Explain a clip by its id or the beginning of it; nothing is written."""
    policy = load_policy(config.policy)
    with catalogue(config.catalogue) as database:
        clip = find_clip(database, config.clip)
        return explain(database, decide(database, policy, "chosen"), clip)


def find_clip(database: Database, wanted: str) -> str:
    """Give the clip whose id begins so; UserError names others when there is none, or several."""
    found = _beginning(database, wanted)
    if wanted in found or len(found) == 1:
        return wanted if wanted in found else found[0]
    if found:
        shown = ", ".join(found[:5])
        raise UserError(f"clip={wanted}: begins the ids of several clips; write more of {shown}")
    for length in range(len(wanted) - 1, -1, -1):
        if near := _beginning(database, wanted[:length]):
            raise UserError(
                f"clip={wanted}: no clip's id begins so; nearest: {', '.join(near[:3])}"
            )
    raise UserError(f"clip={wanted}: the catalogue has no clips; curate some footage first")


def explain(database: Database, chosen: Selection, clip: str) -> Explanation:
    """Explain a clip that is there."""
    (scores,) = database.rows("SELECT * FROM clips WHERE clip_id = ?", [clip])
    videos = database.rows("SELECT * FROM videos WHERE video_id = ?", [scores["video_id"]])
    (standing,) = database.rows(
        f"SELECT bucket, rank FROM ({decisions(chosen)}) WHERE clip_id = ?",  # noqa: S608
        [clip],
    )
    return Explanation(
        policy=chosen.policy.name,
        scores=scores,
        video=videos[0] if videos else {},
        verdicts=_verdicts(database, chosen, clip),
        bucket=standing["bucket"],
        rank=standing["rank"],
        kept=chosen.kept,
        original=_original(database, chosen, scores.get("dup_of")),
        copies=_copies(database, clip) if "dup_of" in scores else (),
    )


def _verdicts(database: Database, chosen: Selection, clip: str) -> tuple[Verdict, ...]:
    cells = [
        f"CASE WHEN {check.applies} THEN {check.verdict} END AS verdict_{i}, lost_{i}"
        for i, check in enumerate(chosen.checks)
    ]
    sql = f"SELECT {', '.join(['1', *cells])} FROM {chosen.table} WHERE clip_id = ?"  # noqa: S608
    (row,) = database.rows(sql, [clip])
    numbers = range(len(chosen.checks))
    return tuple(
        Verdict(**json.loads(row[f"verdict_{i}"]), passed=not row[f"lost_{i}"])
        for i in numbers
        if row[f"verdict_{i}"] is not None
    )


def _original(database: Database, chosen: Selection, name: object) -> tuple[str, str | None] | None:
    if not name:
        return None
    sql = f"SELECT {chosen.reason()} AS reason FROM {chosen.table} WHERE clip_id = ?"  # noqa: S608
    found = database.rows(sql, [name])
    return str(name), found[0]["reason"] if found else "no clip of that name"


def _copies(database: Database, clip: str) -> tuple[str, ...]:
    sql = f"SELECT clip_id FROM clips WHERE dup_of = ? ORDER BY clip_id LIMIT {_SHOWN + 1}"  # noqa: S608
    return tuple(str(row["clip_id"]) for row in database.rows(sql, [clip]))


def _beginning(database: Database, prefix: str) -> list[str]:
    sql = "SELECT clip_id FROM clips WHERE starts_with(clip_id, ?) ORDER BY clip_id LIMIT 6"
    return [str(row["clip_id"]) for row in database.rows(sql, [prefix])]


def _plain(value: Any) -> str:  # noqa: ANN401 - a cell of any table
    if value is None or value == "":
        return "unknown" if value is None else '""'
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        cells = ", ".join(_plain(cell) for cell in value[:_SHOWN])
        return f"[{cells}{', ...' if len(value) > _SHOWN else ''}]"
    text = str(value)
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
