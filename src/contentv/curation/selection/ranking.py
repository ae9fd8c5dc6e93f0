"""The best in every column at once, and no more of one source than its quota.

Clips that pass all rules are ranked by each of m columns, equals by clip id: place 0 is the best. A
cut k_j in column j lets places below k_j through. Cuts grow by turns, k_0 first: after step e they
are `(e - j) // m + 1`, so a clip is let in at `entry = max_j(m * place_j + j)`. No two clips have
an equal entry, because no two have an equal place in a column. Hence every step lets in one clip at
most, and any wished number of clips is met exactly, with cuts that differ by one at most.
"""

from dataclasses import dataclass
from itertools import combinations

from contentv.curation.database import Database, name, text
from contentv.curation.selection.policy import QUOTA, TOP, Policy, Top
from contentv.curation.selection.rules import Check, known_number, number, verdict


@dataclass(frozen=True)
class Best:
    """What came of `top`: of `ranked` clips those within the cuts of every column.

    `correlations` are Spearman's, of each two columns. `missing` clips lack a value to rank by.
    """

    columns: tuple[str, ...]
    ranked: int
    missing: int
    cuts: tuple[int, ...]
    chosen: int
    kept: int
    target: int | None
    correlations: dict[tuple[str, str], float]

    @property
    def by_chance(self) -> float:
        """How many would be within all cuts if the columns had nothing to do with each other."""
        share = 1.0
        for cut in self.cuts:
            share *= cut / max(1, self.ranked)
        return share * self.ranked

    def lines(self) -> list[str]:
        """Say it to a person."""
        part = max(self.cuts) / max(1, self.ranked)
        names = " and ".join(self.columns)
        what = f"top: {self.chosen} of {self.ranked} clips are in the best {part:.2%} of {names}"
        said = [f"{what}; by chance it would be {self.by_chance:.1f}"]
        said += [f"top: rank correlation of {a} and {b}: {r:+.3f}" for (a, b), r in self._pairs()]
        if self.missing:
            said.append(f"top: {self.missing} clips lack a value to be ranked by, and are lost")
        if self.target is not None and self.kept != self.target:
            said.append(f"top: target={self.target} cannot be met: {self.kept} clips are all there")
        return said

    def _pairs(self) -> list[tuple[tuple[str, str], float]]:
        return list(self.correlations.items())


def rank(database: Database, policy: Policy, judged: str, ranked: str) -> Best | None:
    """Make the table `ranked` of clips with their places, of those in `judged` that lost nothing.

    Its columns: `clip_id`, `place_0` and so on, `entry`, and `spot`, the clip's number within its
    source. None when the policy has no `top`.
    """
    columns = policy.top.columns if policy.top else ()
    known = " AND ".join(f"{known_number(column)} IS NOT NULL" for column in columns) or "true"
    places = "".join(
        f", row_number() OVER (ORDER BY {name(column)} DESC, clip_id) - 1 AS place_{j}"
        for j, column in enumerate(columns)
    )
    entries = [f"{len(columns)} * place_{j} + {j}" for j in range(len(columns))]
    entry = f"greatest({', '.join(entries)})" if entries else "row_number() OVER (ORDER BY clip_id)"
    source = name(policy.quota.column) if policy.quota else "clip_id"
    database.run(f"""
        CREATE OR REPLACE TEMP TABLE {ranked} AS
        SELECT * EXCLUDE (source), row_number() OVER (PARTITION BY source ORDER BY entry) AS spot
        FROM (
            SELECT *, {entry} AS entry FROM (
                SELECT clip_id, {source} AS source{places} FROM {judged}
                WHERE gates = 0 AND {known}
            )
        )
    """)  # noqa: S608 - made of quoted names
    return _best(database, policy, policy.top, judged, ranked) if policy.top else None


def rank_checks(policy: Policy, best: Best | None) -> list[Check]:
    """The losses by `top`, a column each, and by the quota, as SQL over clips and `rank`'s table.

    Only clips that have lost nothing so far are judged.
    """
    checks = []
    if best:
        pairs = enumerate(zip(best.columns, best.cuts, strict=True))
        checks = [_top_check(j, column, cut, best.ranked) for j, (column, cut) in pairs]
    if policy.quota:
        most = policy.quota.most
        margin = f"CAST({most} - spot AS VARCHAR)"
        words = verdict(QUOTA, "CAST(spot AS VARCHAR)", text("<="), text(str(most)), margin)
        checks.append(Check(QUOTA, f"coalesce(spot > {most}, false)", words, "spot IS NOT NULL"))
    return checks


def _top_check(j: int, column: str, cut: int, ranked: int) -> Check:
    """The value is the share of ranked clips that are below: 0.9 begins the best tenth."""
    count = max(1, ranked)
    value = f"CAST({ranked} - 1 - place_{j} AS DOUBLE) / {count}"
    threshold = (ranked - cut) / count
    missing = f"({known_number(column)}) IS NULL"
    applies = f"gates = 0 AND (place_{j} IS NOT NULL OR {missing})"
    return Check(
        f"{TOP}.{column}",
        f"{applies} AND ({missing} OR place_{j} >= {cut})",
        verdict(
            f"{TOP}.{column}",
            f"CAST({value} AS VARCHAR)",
            text(">="),
            text(repr(threshold)),
            f"CAST({value} - {number(threshold)} AS VARCHAR)",
        ),
        applies,
    )


def _best(database: Database, policy: Policy, top: Top, judged: str, ranked: str) -> Best:
    passed = _count(database, f"{judged} WHERE gates = 0")
    count = _count(database, ranked)
    allowed = f"spot <= {policy.quota.most}" if policy.quota else "true"
    if top.target is None:
        assert top.share is not None
        last = len(top.columns) * int(top.share * count + 0.5) - 1
    else:
        # The entry of the last clip that is wanted; when there are too few, all may come in.
        found = database.rows(
            f"SELECT entry FROM {ranked} WHERE {allowed} ORDER BY entry LIMIT 1 OFFSET ?",  # noqa: S608
            [top.target - 1],
        )
        last = int(found[0]["entry"]) if found else len(top.columns) * count - 1
    cuts = tuple((last - j) // len(top.columns) + 1 for j in range(len(top.columns)))
    return Best(
        columns=top.columns,
        ranked=count,
        missing=passed - count,
        cuts=cuts,
        chosen=_count(database, f"{ranked} WHERE entry <= {last}"),
        kept=_count(database, f"{ranked} WHERE entry <= {last} AND {allowed}"),
        target=top.target,
        correlations=_correlations(database, top.columns, ranked, count),
    )


def _correlations(
    database: Database, columns: tuple[str, ...], ranked: str, count: int
) -> dict[tuple[str, str], float]:
    """Spearman's of places, all different: 1 - 6 sum(d^2) / (n^3 - n), summed in whole numbers."""
    found = {}
    for a, b in combinations(range(len(columns)), 2):
        square = f"CAST((place_{a} - place_{b}) AS HUGEINT) * (place_{a} - place_{b})"
        (row,) = database.rows(f"SELECT CAST(sum({square}) AS VARCHAR) AS total FROM {ranked}")  # noqa: S608
        if count > 1:
            found[columns[a], columns[b]] = 1 - 6 * int(row["total"]) / (count**3 - count)
    return found


def _count(database: Database, rows: str) -> int:
    return int(database.rows(f"SELECT count(*) AS count FROM {rows}")[0]["count"])  # noqa: S608
