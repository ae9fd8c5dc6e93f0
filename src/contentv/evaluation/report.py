"""From rows to tables: shares with intervals by group, confusions, and two models side by side."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from statistics import fmean

from contentv.base.config import Config
from contentv.evaluation.scoring import Row
from contentv.evaluation.statistics import Pairs, mcnemar, mean_interval, newcombe, wilson

FAMILIES = ("move", "still", "zoom", "spin", "two", "pan")
_SPLITS = ("seen", "held_out")
_KINDS = ("short", "long")


class Share(Config):
    """`right` of `total`, with a 95 % interval."""

    right: int
    total: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share itself, 0..1."""
        return self.right / self.total


class Mean(Config):
    """A mean over clips with a 95 % interval."""

    value: float
    low: float
    high: float
    lowest: float


class ShareTable(Config):
    """Lines of shares by column; None where a group has no clip."""

    title: str
    columns: tuple[str, ...]
    lines: dict[str, tuple[Share | None, ...]]


class ModelReport(Config):
    """What one model did; `confusions` count by fact what was asked and what was seen."""

    name: str
    sha256: str
    settings: dict[str, object]
    clips: int
    seconds_per_clip: float
    faults: tuple[str, ...]
    psnr: Mean | None
    groups: ShareTable
    families: ShareTable
    facts: ShareTable
    confusions: dict[str, dict[str, dict[str, int]]]


class Paired(Config):
    """Two models on the same prompts: `difference` is the first's share minus the second's."""

    pairs: Pairs
    difference: float
    low: float
    high: float
    p_value: float


class Report(Config):
    """A whole evaluation; where it was written is said by `place`."""

    suite: str
    seed: int
    num_prompts: int
    created: datetime
    models: tuple[ModelReport, ...]
    comparison: dict[str, Paired] | None
    place: str

    def __str__(self) -> str:
        lines = [line for model in self.models for line in _summary(model)]
        for group, paired in (self.comparison or {}).items():
            lines.append(f"{group}: first minus second {describe_paired(paired)}")
        return "\n".join([*lines, self.place])


def build_model_report(
    name: str, sha256: str, settings: Mapping[str, object], rows: Sequence[Row]
) -> ModelReport:
    """Count the rows of one model, at least one."""
    kinds = [kind for kind in _KINDS if any(row.kind == kind for row in rows)]
    by_kind = {kind: [row for row in rows if row.kind == kind] for kind in kinds}
    by_split = split_rows(rows)
    columns = {"all": list(rows), **(by_kind if len(kinds) > 1 else {})}
    facts = list(dict.fromkeys(fact for row in rows for fact in row.asked))
    decibels = [row.psnr for row in rows if row.psnr is not None]
    return ModelReport(
        name=name,
        sha256=sha256,
        settings=dict(settings),
        clips=len(rows),
        seconds_per_clip=fmean(row.seconds for row in rows),
        faults=tuple(f"{row.name}: {row.fault}" for row in rows if row.fault),
        psnr=_mean(decibels) if decibels else None,
        groups=_all_right("All facts right", columns, by_split),
        families=_all_right(
            "All facts right, by what happens",
            by_split,
            {name: [row for row in rows if row.family == name] for name in FAMILIES},
        ),
        facts=_per_fact(facts, by_split),
        confusions={fact: _confusion(rows, fact) for fact in facts},
    )


def build_report(
    models: Sequence[ModelReport],
    rows: Sequence[Sequence[Row]],
    *,
    suite: str,
    seed: int,
    place: str,
) -> Report:
    """Join one or two models' reports; `rows` are theirs, in the same order of questions."""
    comparison = None
    if len(models) == 2:
        first, second = (split_rows(part) for part in rows)
        comparison = {group: compare(first[group], second[group]) for group in first}
    return Report(
        suite=suite,
        seed=seed,
        num_prompts=len(rows[0]),
        created=datetime.now(UTC).replace(microsecond=0),
        models=tuple(models),
        comparison=comparison,
        place=place,
    )


def compare(first: Sequence[Row], second: Sequence[Row]) -> Paired:
    """Compare two models' rows of the same questions."""
    assert [row.name for row in first] == [row.name for row in second]
    verdicts = Counter((a.all_right, b.all_right) for a, b in zip(first, second, strict=True))
    order = ((True, True), (True, False), (False, True), (False, False))
    pairs = Pairs(*(verdicts[verdict] for verdict in order))
    low, high = newcombe(pairs)
    difference = (pairs.first_only - pairs.second_only) / len(first)
    return Paired(pairs=pairs, difference=difference, low=low, high=high, p_value=mcnemar(pairs))


def split_rows(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """All rows, and those of each split if there is more than one."""
    splits = [split for split in _SPLITS if any(row.split == split for row in rows)]
    parts = {split: [row for row in rows if row.split == split] for split in splits}
    return {"all": list(rows), **parts} if len(splits) > 1 else parts


def share(verdicts: Iterable[bool]) -> Share | None:
    """How many verdicts are right; None of no verdicts."""
    results = list(verdicts)
    if not results:
        return None
    low, high = wilson(sum(results), len(results))
    return Share(right=sum(results), total=len(results), low=low, high=high)


def describe_share(part: Share | None) -> str:
    """Write "0.940 [0.916, 0.957] 470/500"."""
    if part is None:
        return "-"
    return f"{part.value:.3f} [{part.low:.3f}, {part.high:.3f}] {part.right}/{part.total}"


def describe_paired(paired: Paired) -> str:
    """Write the difference with its interval and the test's p-value."""
    limits = f"[{paired.low:+.3f}, {paired.high:+.3f}]"
    return f"{paired.difference:+.3f} {limits}, p = {paired.p_value:.3g}"


def _summary(model: ModelReport) -> list[str]:
    lines = [f"{model.name}: all facts right"]
    if model.psnr is not None:
        lines[0] = f"{model.name}: PSNR {model.psnr.value:.2f} dB, all facts right"
    for group, (first, *_) in model.groups.lines.items():
        lines.append(f"  {group:<9} {describe_share(first)}")
    if model.faults:
        lines.append(
            f"  clips without a video: {len(model.faults)}; the first is {model.faults[0]}"
        )
    return lines


def _all_right(
    title: str, columns: Mapping[str, Sequence[Row]], lines: Mapping[str, Sequence[Row]]
) -> ShareTable:
    names = {column: {row.name for row in rows} for column, rows in columns.items()}
    return ShareTable(
        title=title,
        columns=tuple(columns),
        lines={
            line: tuple(
                share(row.all_right for row in rows if row.name in chosen)
                for chosen in names.values()
            )
            for line, rows in lines.items()
        },
    )


def _per_fact(facts: Sequence[str], columns: Mapping[str, Sequence[Row]]) -> ShareTable:
    return ShareTable(
        title="Each fact, where it was asked for",
        columns=tuple(columns),
        lines={
            fact: tuple(
                share(row.right[fact] for row in rows if fact in row.asked)
                for rows in columns.values()
            )
            for fact in facts
        },
    )


def _confusion(rows: Sequence[Row], fact: str) -> dict[str, dict[str, int]]:
    counts = Counter((row.asked[fact], row.seen[fact]) for row in rows if fact in row.asked)
    asked = sorted({pair[0] for pair in counts})
    return {a: {s: counts[a, s] for b, s in sorted(counts) if a == b} for a in asked}


def _mean(values: list[float]) -> Mean:
    low, high = mean_interval(values)
    return Mean(value=fmean(values), low=low, high=high, lowest=min(values))
