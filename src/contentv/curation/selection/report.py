"""`contentv curate report`: one page that shows what a policy does, and to which clips.

The page is a single file: pictures are inside, there are no scripts, nothing is fetched.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import yaml

from contentv.base.files import atomic_path
from contentv.curation.database import Database
from contentv.curation.selection.borderline import Example, examples, pictures
from contentv.curation.selection.charts import Histogram, drawing, histogram
from contentv.curation.selection.funnel import Funnel, funnel
from contentv.curation.selection.policy import KIND, Policy, Rule, load_policy
from contentv.curation.selection.questions import ReportConfig
from contentv.curation.selection.select import Selection, catalogue, decide

_SOURCES = 30
_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--pale:#c9d1da;--full:#2267b5;
--bad:#b3261e;--line:#d8dee4;--soft:#5c6670}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ec;--paper:#14171a;--pale:#434c56;
--full:#6aa9f0;--bad:#ff8a80;--line:#2c333a;--soft:#98a2ad}}
*{box-sizing:border-box}body{margin:0 auto;padding:1rem;max-width:70rem;color:var(--ink);
background:var(--paper);font:16px/1.5 system-ui,sans-serif}h1{font-size:1.5rem}h2{margin-top:2.5rem;
font-size:1.2rem}h3{margin:1.6rem 0 .3rem;font-size:1rem}p,li{max-width:46rem}
.soft{color:var(--soft)}.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .6rem;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
td:first-child,th:first-child,td.word,th.word{text-align:left}td.word{white-space:normal;
min-width:6rem;overflow-wrap:break-word}meter{width:min(8rem,20vw)}svg{display:block;width:100%;max-width:32rem;height:auto}
.all{fill:var(--pale)}.kept{fill:var(--full)}.bound{stroke:var(--bad);stroke-width:1.5}
.at{fill:var(--bad);font-size:12px}.floor{stroke:var(--soft)}.grid{display:grid;gap:.5rem;
grid-template-columns:repeat(auto-fill,minmax(8.5rem,1fr));margin:.6rem 0}figure{margin:0;
border:2px solid var(--full);border-radius:4px;overflow:hidden;font-size:.78rem}
figure.lost{border-color:var(--bad)}figcaption{padding:.2rem .35rem;overflow-wrap:anywhere}
.frame{position:relative}.frame img{display:block;width:100%}.frame i{position:absolute;
border:2px dashed #fff;outline:1px solid #0009}.none{padding:1.2rem .5rem;color:var(--soft)}
summary{cursor:pointer}pre{overflow-x:auto;font-size:.8rem}
"""


@dataclass(frozen=True)
class ReportResult:
    """Where the page is."""

    path: Path
    pictures: int
    missing: int

    def __str__(self) -> str:
        missing = f", {self.missing} could not be read" if self.missing else ""
        return f"{self.path}: {self.pictures} pictures{missing}"


def run(config: ReportConfig) -> ReportResult:
    """Apply a policy and write the page about it."""
    policy = load_policy(config.policy)
    with catalogue(config.catalogue) as database:
        chosen = decide(database, policy, "chosen")
        ranges, drawn = _look(database, chosen, config.thumbnails)
        stills, faults = pictures([example for shown in drawn.values() for example in shown])
        parts = [
            _head(policy, chosen),
            _funnel(funnel(database, chosen)),
            *(
                _rule(rule, ranges.get(rule.rule), drawn[rule.rule], stills, faults)
                for rule in policy.rules
            ),
            _sources(database, chosen),
            _failures(database),
            _written(policy),
        ]
    path = config.out or config.catalogue / f"report-{policy.name}.html"
    with atomic_path(path) as part:
        part.write_text(_page(policy.name, parts), encoding="utf-8")
    shown = [(e.video, e.moment) for many in drawn.values() for e in many]
    return ReportResult(path, len(stills), len(set(shown) - stills.keys()))


def _look(
    database: Database, chosen: Selection, count: int
) -> tuple[dict[str, Histogram], dict[str, list[Example]]]:
    # The wish for a kind stands before the rules.
    before = sum(check.rule == KIND for check in chosen.checks)
    ranges, drawn = {}, {}
    for i, rule in enumerate(chosen.policy.rules):
        if rule.is_range:
            ranges[rule.rule] = histogram(database, chosen, i + before, rule)
        drawn[rule.rule] = examples(database, chosen, i + before, rule, count) if count else []
    return ranges, drawn


def _page(title: str, parts: Iterable[str]) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>Curation: {escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"{''.join(parts)}</body></html>\n"
    )


def _head(policy: Policy, chosen: Selection) -> str:
    best = "".join(
        f"<p>{escape(line)}</p>" for line in (chosen.best.lines() if chosen.best else ())
    )
    share = f"{chosen.kept / chosen.total:.1%}" if chosen.total else "nothing"
    said = f"Keeps <b>{chosen.kept}</b> of {chosen.total} clips ({share})."
    key = "In the charts, what is kept is blue, what is lost is grey; red lines are thresholds."
    return f"<h1>Policy {escape(policy.name)}</h1><p>{said}</p>{best}<p class=soft>{key}</p>"


def _funnel(losses: Funnel) -> str:
    rows, left = [], losses.total
    for loss in losses.losses:
        left -= loss.lost
        bar = f'<meter min=0 max="{max(1, losses.total)}" value="{left}"></meter>'
        rows.append(
            [escape(loss.rule), str(loss.lost), bar + f" {left}", str(loss.any), str(loss.alone)]
        )
    heads = ("rule", "lost here", "left", "lost by it at all", "by it alone")
    return f"<h2>Funnel</h2>{_table(heads, rows)}"


def _rule(
    rule: Rule,
    shown: Histogram | None,
    drawn: Sequence[Example],
    stills: Mapping[tuple[str, int], str],
    faults: Mapping[str, str],
) -> str:
    chart = ""
    if shown:
        chart = drawing(shown, f"{rule.column}: {sum(shown.counts)} clips")
        chart += f"<p class=soft>{shown.low:.4g} to {shown.high:.4g}; "
        chart += f"{sum(shown.counts)} clips, {shown.missing} without a value</p>"
    cells = "".join(_figure(example, stills, faults) for example in drawn)
    what = "near the threshold" if rule.is_range else "lost by it"
    border = f"<details open><summary>{len(drawn)} clips {what}</summary>" if drawn else ""
    border += f"<div class=grid>{cells}</div></details>" if drawn else ""
    column = f"<span class=soft>{escape(rule.column)} {escape(_wish(rule))}</span>"
    return f"<h3>{escape(rule.rule)} {column}</h3>{chart}{border}"


def _figure(
    example: Example, stills: Mapping[tuple[str, int], str], faults: Mapping[str, str]
) -> str:
    still = stills.get((example.video, example.moment))
    why = faults.get(example.video, "has no frame at that time")
    inside = f"<div class=none>no picture: {escape(why)}</div>"
    if still:
        inside = f'<img src="{still}" alt="" loading="lazy">{_crop(example)}'
    fate = f"lost by {example.fate}" if example.fate else "kept"
    words = f"<b>{escape(_short(example.value))}</b> {escape(fate)}<br>"
    words += f"<span class=soft>{escape(example.clip[:12])}</span>"
    side = "lost" if example.lost else "passed"
    return (
        f'<figure class="{side}" title="{escape(example.uri)}"><div class=frame>{inside}</div>'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _crop(example: Example) -> str:
    if example.crop is None or example.crop[2:] == (1.0, 1.0):
        return ""
    x, y, width, height = (100 * side for side in example.crop)
    place = f"left:{x:.1f}%;top:{y:.1f}%;width:{width:.1f}%;height:{height:.1f}%"
    return f'<i style="{place}"></i>'


def _sources(database: Database, chosen: Selection) -> str:
    named = "coalesce(CAST(v.source AS VARCHAR), 'unknown')"
    source = named if "source" in database.types("videos") else "c.video_id"
    found = database.rows(f"""
        SELECT {source} AS source, count(*) AS n, count(*) FILTER (t.first IS NULL) AS kept,
            mode({chosen.reason("t")}) AS reason
        FROM {chosen.table} AS t JOIN clips AS c USING (clip_id)
        LEFT JOIN videos AS v ON v.video_id = c.video_id
        GROUP BY source ORDER BY n DESC, source
    """)  # noqa: S608 - made of quoted text
    rows = [
        [escape(str(row["source"])), str(row["n"]), str(row["kept"]), escape(row["reason"] or "-")]
        for row in found[:_SOURCES]
    ]
    more = f"<p class=soft>{len(found) - _SOURCES} more sources</p>" if found[_SOURCES:] else ""
    heads = ("source", "clips", "kept", "mostly lost by")
    return f"<h2>Sources</h2>{_table(heads, rows)}{more}"


def _failures(database: Database) -> str:
    found = database.rows("""
        SELECT CAST(status AS VARCHAR) AS status, coalesce(error_class, '') AS class,
            count(*) AS n, coalesce(min(error), '') AS example
        FROM videos GROUP BY ALL ORDER BY n DESC, status, class
    """)
    rows = [
        [escape(row["status"]), escape(row["class"]), str(row["n"]), escape(row["example"])]
        for row in found
    ]
    heads = ("status", "class", "files", "such as")
    return f"<h2>Files</h2>{_table(heads, rows, words=(1, 3))}"


def _written(policy: Policy) -> str:
    content = policy.model_dump(mode="json", exclude_none=True)
    said = escape(yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    shown = f"<details><summary>as it was applied</summary><pre>{said}</pre></details>"
    return f"<h2>The policy</h2>{shown}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> str:
    kinds = [" class=word" if i in words else "" for i in range(len(heads))]
    top = "".join(f"<th{kind}>{head}</th>" for kind, head in zip(kinds, heads, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td{k}>{cell}</td>" for k, cell in zip(kinds, row, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<div class=wide><table><tr>{top}</tr>{body}</table></div>"


def _wish(rule: Rule) -> str:
    bounds = [("at least", rule.min), ("at most", rule.max)]
    said = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
    return " and ".join(said) or f"is {' or '.join(repr(value) for value in rule.allowed)}"


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, str) and len(value) > _WORD:  # the id of a clip
        return value[:12]
    return "unknown" if value is None else str(value) or '""'


_WORD = 24
