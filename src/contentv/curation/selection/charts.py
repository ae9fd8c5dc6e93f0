"""Histograms of scores, with the thresholds of a rule, as SVG in a page."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from contentv.curation.database import Database
from contentv.curation.selection.policy import Rule
from contentv.curation.selection.rules import known_number, number
from contentv.curation.selection.select import Selection

_BINS = 40
_WIDTH, _HEIGHT, _FOOT = 360, 120, 18


@dataclass(frozen=True)
class Histogram:
    """Clips by value: `counts` of all and `kept` of those that the policy keeps, in equal bins.

    What lies outside of `low`..`high` is counted in the first or the last bin.
    """

    low: float
    high: float
    counts: tuple[int, ...]
    kept: tuple[int, ...]
    bounds: tuple[float, ...]
    missing: int

    def place(self, value: float) -> float:
        """Where a value lies, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def histogram(database: Database, chosen: Selection, place: int, rule: Rule) -> Histogram:
    """Count the clips that a rule of thresholds is for by their value."""
    value, applies = known_number(rule.column), chosen.checks[place].applies
    rows = f"(SELECT {value} AS value, first FROM {chosen.table} WHERE {applies})"  # noqa: S608
    (edge,) = database.rows(
        "SELECT quantile_cont(value, 0.005) AS low, quantile_cont(value, 0.995) AS high, "  # noqa: S608
        f"count(*) - count(value) AS missing FROM {rows}"
    )
    bounds = tuple(bound for bound in (rule.min, rule.max) if bound is not None)
    ends = [*bounds, *(value for value in (edge["low"], edge["high"]) if value is not None)]
    low, high = min(ends), max(ends)
    spare = (high - low) * 0.02 or abs(low) * 0.02 or 1.0
    low, high = low - spare, high + spare
    bin_of = f"floor((value - {number(low)}) / {number(high - low)} * {_BINS})"
    found = database.rows(
        f"SELECT CAST(least(greatest({bin_of}, 0), {_BINS - 1}) AS INTEGER) AS bin, "  # noqa: S608
        f"count(*) AS n, count(*) FILTER (first IS NULL) AS kept FROM {rows} "
        "WHERE value IS NOT NULL GROUP BY bin"
    )
    by_bin = {int(row["bin"]): row for row in found}
    counts, kept = (
        tuple(int(by_bin[i][key]) if i in by_bin else 0 for i in range(_BINS))
        for key in ("n", "kept")
    )
    return Histogram(low, high, counts, kept, bounds, int(edge["missing"]))


def drawing(shown: Histogram, title: str) -> str:
    """Draw a histogram as SVG; what is lost pale, what is kept full, thresholds as lines."""
    most = max(*shown.counts, 1)
    bars = _bars(shown.counts, most, "all") + _bars(shown.kept, most, "kept")
    lines = "".join(_bound(bound, shown.place(bound) * _WIDTH) for bound in shown.bounds)
    box = f"0 0 {_WIDTH} {_HEIGHT + _FOOT}"
    named = f"<title>{escape(title)}</title>"
    floor = f'<line class="floor" x1="0" x2="{_WIDTH}" y1="{_HEIGHT}" y2="{_HEIGHT}"/>'
    return f'<svg viewBox="{box}" role="img">{named}{bars}{floor}{lines}</svg>'


def _bars(counts: Sequence[int], most: int, kind: str) -> str:
    step = _WIDTH / len(counts)
    return "".join(
        f'<rect class="{kind}" x="{i * step + 0.5:.1f}" width="{step - 1:.1f}" '
        f'y="{_HEIGHT - tall:.1f}" height="{tall:.1f}"/>'
        for i, count in enumerate(counts)
        if count and (tall := max(1.0, count / most * (_HEIGHT - 4)))
    )


def _bound(value: float, x: float) -> str:
    line = f'<line class="bound" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{_HEIGHT}"/>'
    place = f'x="{x:.1f}" y="{_HEIGHT + 14}" text-anchor="{_anchor(x)}"'
    return f'{line}<text class="at" {place}>{value:g}</text>'


def _anchor(x: float) -> str:
    if x < 30:
        return "start"
    return "end" if x > _WIDTH - 30 else "middle"
