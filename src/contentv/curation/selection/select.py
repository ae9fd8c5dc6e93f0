"""Applies a policy to the catalogue's scores: which clips are kept, and why the others are not.

Nothing is measured here. The result depends on the rows alone, not on their order.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contentv.base.config import save_yaml
from contentv.base.errors import UserError
from contentv.curation.catalogue import CLIPS, STATE, VIDEOS
from contentv.curation.database import Database, name, opened, text
from contentv.curation.selection.fitting import BUCKET_CHECK, GEOMETRY, check_geometry, fitted
from contentv.curation.selection.policy import KIND, Policy, load_policy
from contentv.curation.selection.questions import SelectConfig
from contentv.curation.selection.ranking import Best, rank, rank_checks
from contentv.curation.selection.rules import Check, Columns, rule_checks

_NAMED = ("clip_id", "video_id", KIND)
_CROP = ("crop_x", "crop_y", "crop_width", "crop_height")


@dataclass(frozen=True)
class Selection:
    """A policy applied: `table` holds a row a clip with `first`, the number of its first loss.

    Check i has lost a clip where `lost_i`. `first` is NULL for a clip that is kept, `losses` counts
    the checks that lost it.
    """

    policy: Policy
    table: str
    checks: tuple[Check, ...]
    crops: tuple[str, ...]
    total: int
    kept: int
    best: Best | None

    def verdicts(self, *, lost_only: bool) -> str:
        """SQL of the JSON list of verdicts, in the policy's order."""
        cells = (
            f"CASE WHEN {f'lost_{i}' if lost_only else check.applies} THEN {check.verdict} END"
            for i, check in enumerate(self.checks)
        )
        return f"concat('[', concat_ws(', ', {', '.join(['NULL', *cells])}), ']')"

    def reason(self, alias: str = "") -> str:
        """SQL of the name of the rule that lost the clip first; NULL for one that is kept.

        `alias` is what a query calls the table.
        """
        first = f"{alias or self.table}.first"
        whens = [f"WHEN {i} THEN {text(check.rule)}" for i, check in enumerate(self.checks)]
        return f"CASE {first} {' '.join(whens)} END" if whens else "CAST(NULL AS VARCHAR)"


@dataclass(frozen=True)
class SelectResult:
    """How many clips a policy keeps, and where its decisions are."""

    selection: Selection
    path: Path

    def __str__(self) -> str:
        chosen = self.selection
        kept = f"{chosen.policy.name}: keeps {chosen.kept} of {chosen.total} clips"
        best = chosen.best.lines() if chosen.best else []
        return "\n".join([kept, *best, f"{self.path}"])


def run(config: SelectConfig) -> SelectResult:
    """Apply a policy; write its decisions beside the policy as it was applied."""
    policy = load_policy(config.policy)
    path = decisions_path(config.catalogue, policy)
    with catalogue(config.catalogue) as database:
        chosen = decide(database, policy, "chosen")
        database.write(decisions(chosen), path)
    save_yaml(policy, path.with_suffix(".yaml"))
    return SelectResult(chosen, path)


def decisions_path(folder: Path, policy: Policy) -> Path:
    """Where the decisions of a policy stand in a catalogue."""
    return folder / "decisions" / f"{policy.title}.parquet"


@contextmanager
def catalogue(folder: Path) -> Iterator[Database]:
    """Open the tables `clips` and `videos`; UserError when the folder holds no catalogue."""
    for file in (CLIPS, VIDEOS, STATE):
        if not (folder / file).is_file():
            hint = "run `contentv curate run` first, or name its folder with --catalogue"
            raise UserError(f"catalogue={folder}: has no {file}; {hint}")
    with opened({"clips": folder / CLIPS, "videos": folder / VIDEOS}) as database:
        yield database


def decide(database: Database, policy: Policy, table: str) -> Selection:
    """Judge every clip by the policy, in a table of that name."""
    columns = Columns(database)
    gates = rule_checks(policy, columns)
    if policy.bucket:
        check_geometry(columns)
        gates.append(BUCKET_CHECK)
    _judge(database, policy, columns, gates, f"{table}_judged")
    best = rank(database, policy, f"{table}_judged", f"{table}_ranked")
    checks = (*gates, *rank_checks(policy, best))
    _join(database, len(gates), checks, table)
    counts = f"SELECT count(*) AS total, count(*) FILTER (first IS NULL) AS kept FROM {table}"  # noqa: S608
    (row,) = database.rows(counts)
    crops = tuple(column for column in _CROP if column in columns.families)
    return Selection(policy, table, checks, crops, int(row["total"]), int(row["kept"]), best)


def decisions(chosen: Selection) -> str:
    """SQL of the decisions, ordered by clip."""
    stage, crops = text(chosen.policy.stage), "".join(f", {name(c)}" for c in chosen.crops)
    return f"""
        SELECT clip_id, first IS NULL AS keep, {chosen.reason()} AS first_reason,
            {chosen.verdicts(lost_only=True)} AS reasons, {stage} AS stage, bucket,
            CASE WHEN first IS NULL AND {"true" if chosen.best else "false"}
                 THEN row_number() OVER (PARTITION BY first IS NULL ORDER BY entry) END AS rank
            {crops}
        FROM {chosen.table} ORDER BY clip_id
    """  # noqa: S608 - made of quoted names and text


def _judge(
    database: Database, policy: Policy, columns: Columns, gates: list[Check], table: str
) -> None:
    """Table of clips with what is asked of them, `lost_i` a gate, and `gates`: how many lost."""
    asked = ", ".join(f"{columns.sources[c]} AS {name(c)}" for c in _asked(policy, columns))
    subjects = f"(SELECT {asked} FROM clips AS c LEFT JOIN videos AS v USING (video_id))"  # noqa: S608
    if policy.bucket:
        subjects = f"({fitted(database, subjects, policy.bucket)})"
    else:
        subjects = f"(SELECT *, CAST(NULL AS VARCHAR) AS bucket FROM {subjects})"  # noqa: S608
    lost = "".join(f", ({check.lost}) AS lost_{i}" for i, check in enumerate(gates))
    database.run(f"""
        CREATE OR REPLACE TEMP TABLE {table} AS
        SELECT *, {_how_many(range(len(gates)))} AS gates FROM (SELECT *{lost} FROM {subjects})
    """)  # noqa: S608 - made of quoted names and text


def _asked(policy: Policy, columns: Columns) -> list[str]:
    """Columns that the policy asks for; UserError for one that the catalogue does not have."""
    wanted = [*_NAMED, *(rule.column for rule in policy.rules)]
    for column in wanted:
        columns.family(column, "catalogue")
    for column in policy.top.columns if policy.top else ():
        columns.number(column, "top")
        wanted.append(column)
    if policy.quota:
        columns.family(policy.quota.column, "quota")
        wanted.append(policy.quota.column)
    wanted += GEOMETRY if policy.bucket else ()
    return list(dict.fromkeys([*wanted, *(c for c in _CROP if c in columns.families)]))


def _join(database: Database, gates: int, checks: tuple[Check, ...], table: str) -> None:
    later = "".join(f", ({checks[i].lost}) AS lost_{i}" for i in range(gates, len(checks)))
    whens = [f"WHEN lost_{i} THEN {i}" for i in range(len(checks))]
    first = f"CASE {' '.join(whens)} END" if whens else "CAST(NULL AS INTEGER)"
    database.run(f"""
        CREATE OR REPLACE TEMP TABLE {table} AS
        SELECT *, {first} AS first, {_how_many(range(len(checks)))} AS losses FROM (
            SELECT j.*, r.* EXCLUDE (clip_id){later}
            FROM {table}_judged AS j LEFT JOIN {table}_ranked AS r USING (clip_id)
        )
    """)  # noqa: S608 - made of names of ours
    database.run(f"DROP TABLE {table}_judged")
    database.run(f"DROP TABLE {table}_ranked")


def _how_many(numbers: range) -> str:
    return " + ".join(["0", *(f"CAST(lost_{i} AS INTEGER)" for i in numbers)])
