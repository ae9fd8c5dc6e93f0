"""Two policies over the same clips: another threshold tried out, or two policies side by side."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from contentv.base.errors import UserError
from contentv.curation.database import Database
from contentv.curation.selection.funnel import Loss, funnel
from contentv.curation.selection.policy import BUCKET, QUOTA, TOP, Policy, checked, load_policy
from contentv.curation.selection.questions import DiffConfig, WhatIfConfig
from contentv.curation.selection.select import catalogue, decide

_OFF = "off"
_SECTIONS = (BUCKET, TOP, QUOTA)
_PLAIN = ("kind", "stage")


@dataclass(frozen=True)
class Moved:
    """Clips that only one of two policies keeps: how many, lost by which rule of the other."""

    count: int
    by_rule: dict[str, int]
    examples: tuple[str, ...]

    def lines(self, what: str, why: str) -> list[str]:
        """Say it to a person."""
        rules = ", ".join(f"{rule} {count}" for rule, count in self.by_rule.items())
        named = [f"  {clip}" for clip in self.examples]
        return [f"{what}: {self.count}" + (f"; {why} {rules}" if rules else ""), *named]


@dataclass(frozen=True)
class Comparison:
    """What two policies, `names`, keep of `total` clips, and the losses of both by rule."""

    names: tuple[str, str]
    total: int
    kept: tuple[int, int]
    both: int
    only: tuple[Moved, Moved]
    losses: tuple[tuple[Loss, ...], tuple[Loss, ...]]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        (first, second), (a, b) = self.names, self.kept
        lines = [f"{first}: keeps {a} of {self.total} clips", f"{second}: keeps {b} ({b - a:+})"]
        lines.append(f"kept by both: {self.both}")
        lines += self.only[0].lines(f"kept by {first} only", "the other loses them by")
        lines += self.only[1].lines(f"kept by {second} only", "the other loses them by")
        return "\n".join([*lines, "", *self._table(), *self.notes])

    def _table(self) -> list[str]:
        before, after = ({loss.rule: loss.lost for loss in side} for side in self.losses)
        rules = [*before, *(rule for rule in after if rule not in before)]
        width = max(len("rule"), *(len(rule) for rule in rules))
        lines = [f"{'rule':<{width}} {'lost':>10} {'then':>10} {'change':>10}"]
        for rule in rules:
            a, b = before.get(rule, 0), after.get(rule, 0)
            lines.append(f"{rule:<{width}} {a:>10} {b:>10} {b - a:>+10}")
        return lines


def run_what_if(config: WhatIfConfig) -> Comparison:
    """Compare a policy with a changed one; nothing is written."""
    policy = load_policy(config.policy)
    other = changed(policy, config.changes)
    names = policy.name, f"{policy.name} with {' '.join(config.changes)}"
    with catalogue(config.catalogue) as database:
        return compare(database, policy, other, names, config.show)


def run_diff(config: DiffConfig) -> Comparison:
    """Compare two policies; nothing is written."""
    first, second = load_policy(config.first), load_policy(config.second)
    names = (first.name, second.name)
    if first.name == second.name:
        names = first.title, second.title
    with catalogue(config.catalogue) as database:
        return compare(database, first, second, names, config.show)


def changed(policy: Policy, changes: Sequence[str]) -> Policy:
    """Give the policy with `rule.min=4.75`, `rule=off`, `top.share=0.2` and the like applied."""
    content = policy.model_dump(mode="json", exclude_none=True)
    for change in changes:
        target, equals, value = change.partition("=")
        if not equals or not target:
            raise UserError(f"set={change}: not a change; write NAME.FIELD=VALUE or NAME=off")
        _apply(content, target, value, change)
    return checked(content, f"set={' '.join(changes)}")


def compare(
    database: Database, first: Policy, second: Policy, names: tuple[str, str], show: int
) -> Comparison:
    """Apply both policies and count who keeps what."""
    sides = decide(database, first, "one"), decide(database, second, "other")
    database.run(f"""
        CREATE OR REPLACE TEMP TABLE pairs AS
        SELECT clip_id, {sides[0].reason("a")} AS one, {sides[1].reason("b")} AS other
        FROM one AS a JOIN other AS b USING (clip_id)
    """)  # noqa: S608 - made of quoted text
    (both,) = database.rows("SELECT count(*) AS n FROM pairs WHERE one IS NULL AND other IS NULL")
    return Comparison(
        names=names,
        total=sides[0].total,
        kept=(sides[0].kept, sides[1].kept),
        both=int(both["n"]),
        only=(_moved(database, "one", "other", show), _moved(database, "other", "one", show)),
        losses=(funnel(database, sides[0]).losses, funnel(database, sides[1]).losses),
        notes=tuple(
            f"{name}: {line}"
            for name, side in zip(names, sides, strict=True)
            for line in (side.best.lines() if side.best else ())
        ),
    )


def _moved(database: Database, keeper: str, loser: str, show: int) -> Moved:
    where = f"FROM pairs WHERE {keeper} IS NULL AND {loser} IS NOT NULL"
    counted = database.rows(
        f"SELECT {loser} AS rule, count(*) AS n {where} GROUP BY rule ORDER BY n DESC, rule"
    )
    named = database.rows(f"SELECT clip_id {where} ORDER BY clip_id LIMIT {show}")
    by_rule = {str(row["rule"]): int(row["n"]) for row in counted}
    return Moved(sum(by_rule.values()), by_rule, tuple(str(row["clip_id"]) for row in named))


def _apply(content: dict[str, Any], target: str, value: str, change: str) -> None:
    rules: list[dict[str, Any]] = content["rules"]
    name, dot, field = target.partition(".")
    if name in _PLAIN and not dot:
        content[name] = value
        return
    known = [*(rule["rule"] for rule in rules), *(part for part in _SECTIONS if part in content)]
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known)}"
        raise UserError(f"set={change}: the policy has no rule {name}; {hint}")
    if not dot:
        if value != _OFF:
            raise UserError(f"set={change}: say what of {name}, as in {name}.min={value}")
        content.pop(name, None)
        rules[:] = [rule for rule in rules if rule["rule"] != name]
        return
    part = content[name] if name in _SECTIONS else next(r for r in rules if r["rule"] == name)
    part[field] = _value(value, change)
    for other in {"target": ["share"], "share": ["target"]}.get(field, []):
        part.pop(other, None)  # a size is one of the two


def _value(written: str, change: str) -> object:
    try:
        return yaml.safe_load(written)
    except yaml.YAMLError as error:
        raise UserError(
            f"set={change}: {written} is no value; quote text that looks odd"
        ) from error
