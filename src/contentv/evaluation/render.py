"""A report as Markdown and as one HTML file that needs nothing beside it."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from contentv.evaluation.report import (
    ModelReport,
    Report,
    ShareTable,
    describe_paired,
    describe_share,
)

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;text-align:left;"
    "border-bottom:1px solid #ccc;font-variant-numeric:tabular-nums}img{max-width:100%}"
    "code{overflow-wrap:anywhere}"
)


@dataclass(frozen=True)
class Section:
    """A heading with paragraphs, a table, pictures; any of them may be missing."""

    title: str
    level: int = 3
    paragraphs: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()
    pictures: tuple[Path, ...] = ()


def sections(report: Report, pictures: Sequence[Sequence[Path]]) -> Iterator[Section]:
    """Lay a report out; `pictures` are the contact sheets of each model."""
    yield Section(
        f"contentv evaluate {report.suite}",
        level=1,
        paragraphs=(
            f"{report.num_prompts} prompts, seed {report.seed}, {report.created:%Y-%m-%d %H:%M}Z.",
            "Shares with 95 % intervals (Wilson) and counts.",
        ),
    )
    if report.comparison is not None:
        first, second = (model.name for model in report.models)
        yield Section(
            "Comparison",
            level=2,
            paragraphs=(
                f"All facts right, {first} minus {second}, on the same prompts and noise.",
                "Intervals by Newcombe's method 10; p-values of McNemar's exact test.",
            ),
            header=("", "difference", "both", f"only {first}", f"only {second}", "neither"),
            lines=tuple(
                (group, describe_paired(paired), *(str(count) for count in paired.pairs))
                for group, paired in report.comparison.items()
            ),
        )
    for model, sheets in zip(report.models, pictures, strict=True):
        yield from _model_sections(model, sheets)


def to_markdown(report: Report, pictures: Sequence[Sequence[Path]], *, beside: Path) -> str:
    """Markdown; pictures are links relative to the folder `beside`."""
    parts: list[str] = []
    for section in sections(report, pictures):
        parts += [f"{'#' * section.level} {section.title}", *section.paragraphs]
        if section.lines:
            rule = tuple("---" for _ in section.header)
            rows = (section.header, rule, *section.lines)
            parts.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
        parts += [f"![{p.stem}]({p.relative_to(beside).as_posix()})" for p in section.pictures]
    return "\n\n".join(parts) + "\n"


def to_html(report: Report, pictures: Sequence[Sequence[Path]]) -> str:
    """One HTML page with its pictures inside."""
    body = "\n".join(_html(section) for section in sections(report, pictures))
    title = f"contentv evaluate {report.suite}"
    head = f'<meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n{body}\n</body></html>\n'


def _model_sections(model: ModelReport, sheets: Sequence[Path]) -> Iterator[Section]:
    facts = [f"Hash {model.sha256}.", f"{model.clips} clips, {model.seconds_per_clip:.2f} s each."]
    if model.psnr is not None:
        psnr = model.psnr
        limits = f"[{psnr.low:.2f}, {psnr.high:.2f}], lowest {psnr.lowest:.2f}"
        facts.append(f"PSNR {psnr.value:.2f} dB {limits}.")
    if model.faults:
        facts.append(f"Clips without a video: {len(model.faults)}; the first is {model.faults[0]}.")
    settings = ", ".join(f"{key} {value}" for key, value in _flat(model.settings))
    yield Section(model.name, level=2, paragraphs=(" ".join(facts), f"Settings: {settings}."))
    for table in (model.groups, model.families, model.facts):
        yield _share_section(table)
    for fact, counts in model.confusions.items():
        wrong = sum(n for asked, seen in counts.items() for s, n in seen.items() if s != asked)
        if wrong:
            yield _confusion_section(fact, counts)
    if sheets:
        yield Section("Clips", pictures=tuple(sheets))


def _share_section(table: ShareTable) -> Section:
    return Section(
        table.title,
        header=("", *table.columns),
        lines=tuple(
            (line, *(describe_share(cell) for cell in cells)) for line, cells in table.lines.items()
        ),
    )


def _confusion_section(fact: str, counts: dict[str, dict[str, int]]) -> Section:
    seen = sorted({value for line in counts.values() for value in line} | set(counts))
    return Section(
        f"{fact}: asked (lines) and seen (columns)",
        header=("", *seen),
        lines=tuple(
            (asked, *(str(line.get(value, "")) for value in seen)) for asked, line in counts.items()
        ),
    )


def _flat(settings: dict[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _html(section: Section) -> str:
    parts = [f"<h{section.level}>{escape(section.title)}</h{section.level}>"]
    parts += [f"<p>{escape(text)}</p>" for text in section.paragraphs]
    if section.lines:
        header = "".join(f"<th>{escape(cell)}</th>" for cell in section.header)
        rows = ("".join(_html_cells(line)) for line in section.lines)
        body = "\n".join(f"<tr>{row}</tr>" for row in rows)
        parts.append(f"<table><tr>{header}</tr>\n{body}</table>")
    for picture in section.pictures:
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f'<h4>{picture.stem}</h4><img alt="" src="data:image/png;base64,{data}">')
    return "\n".join(parts)


def _html_cells(line: Sequence[str]) -> Iterator[str]:
    yield f"<th>{escape(line[0])}</th>"
    yield from (f"<td>{escape(cell)}</td>" for cell in line[1:])
