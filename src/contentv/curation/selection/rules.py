"""Rules as SQL: whether a clip is lost by a rule, and the verdict that explains it."""

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from contentv.base.errors import UserError
from contentv.curation.database import Database, name, text
from contentv.curation.selection.policy import KIND, Policy, Rule, Scalar

Family: TypeAlias = Literal["number", "text", "truth", "list"]

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_NUMBERS = {"FLOAT", "DOUBLE", *_INTEGERS, *(f"U{kind}" for kind in _INTEGERS)}
_WORDS: dict[Family, str] = {
    "number": "numbers",
    "text": "text",
    "truth": "true or false",
    "list": "lists",
}


@dataclass(frozen=True)
class Check:
    """A rule in SQL over the clips: two truths (`lost` only where it `applies`) and JSON text.

    `verdict` is `{"rule", "value", "op", "threshold", "margin"}`: the margin is how far inside the
    threshold the value lies, in the column's unit, negative outside, null for text or no value.
    """

    rule: str
    lost: str
    verdict: str
    applies: str = "true"


class Columns:
    """Columns of the clips, and those of their videos under `video_...`, with what they hold."""

    def __init__(self, database: Database) -> None:
        clips = database.types("clips")
        videos = {f"video_{key}": kind for key, kind in database.types("videos").items()}
        self.sources = {column: f"c.{name(column)}" for column in clips}
        for column in videos.keys() - clips.keys() - {"video_video_id"}:
            self.sources[column] = f"v.{name(column.removeprefix('video_'))}"
        kinds: Mapping[str, str] = {**videos, **clips}
        self.families = {column: _family(kinds[column]) for column in self.sources}

    def family(self, column: str, who: str) -> Family:
        """What a column holds; UserError, naming `who` asks, when there is no such column."""
        if column in self.families:
            return self.families[column]
        near = difflib.get_close_matches(column, self.families, n=3, cutoff=0.7)
        alike = [known for known in sorted(self.families) if known.startswith(column[:4])][:6]
        hint = "score it with `contentv curate run`, or leave that out"
        if near or alike:
            hint = f"did you mean {' or '.join(near or alike)}?"
        raise UserError(f"{who}: the catalogue has no column {column}; {hint}")

    def number(self, column: str, who: str) -> str:
        """A column that must hold numbers, as SQL: NULL for NaN and infinity too."""
        family = self.family(column, who)
        if family != "number":
            raise UserError(f"{who}: {column} holds {_WORDS[family]}; name a column of numbers")
        return known_number(column)


def rule_checks(policy: Policy, columns: Columns) -> list[Check]:
    """The policy's rules as SQL, the wish for a kind first; UserError for a column that is wrong.

    Columns stand for themselves, under their own names.
    """
    checks = [_check(rule, columns) for rule in policy.rules]
    if policy.kind == "all":
        return checks
    kind = _equal(KIND, KIND, (policy.kind,), "reject")
    return [kind, *checks]


def known_number(column: str) -> str:
    """A column of numbers as DOUBLE; NULL where it is no finite number."""
    value = f"CAST({name(column)} AS DOUBLE)"
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def verdict(rule: str, value: str, op: str, threshold: str, margin: str) -> str:
    """SQL of a verdict's JSON text, from SQL of the texts of its parts, NULL for null."""
    quoted = f"concat('\"', {op}, '\"')"
    parts = {"value": value, "op": quoted, "threshold": threshold, "margin": margin}
    pieces = [text(json.dumps({"rule": rule})[:-1])]
    for key, part in parts.items():
        pieces += [text(f', "{key}": '), f"coalesce({part}, 'null')"]
    return f"concat({', '.join(pieces)}, '}}')"


def number(value: float) -> str:
    """A number as SQL, exactly."""
    return f"CAST({text(repr(float(value)))} AS DOUBLE)"


def _check(rule: Rule, columns: Columns) -> Check:
    who = f"rule={rule.rule}"
    if rule.is_range:
        check = _range(rule, columns.number(rule.column, who))
    else:
        _check_values(rule, columns.family(rule.column, who))
        check = _equal(rule.rule, rule.column, rule.allowed, rule.missing)
    if rule.kind == "all":
        return check
    applies = f"{name(KIND)} = {text(rule.kind)}"
    return Check(check.rule, f"{applies} AND {check.lost}", check.verdict, applies)


def _range(rule: Rule, value: str) -> Check:
    inside, margins = [], {}
    if rule.min is not None:
        margins[">="] = rule.min, f"({value}) - {number(rule.min)}"
        inside.append(f"({value}) >= {number(rule.min)}")
    if rule.max is not None:
        margins["<="] = rule.max, f"{number(rule.max)} - ({value})"
        inside.append(f"({value}) <= {number(rule.max)}")
    # Of two bounds the nearer one is spoken of; when one is crossed, that is the nearer.
    (op, (threshold, margin)), (other, (above, room)) = (*margins.items(), *margins.items())[:2]
    nearer = f"coalesce({margin} <= {room}, true)"
    return Check(
        rule.rule,
        f"NOT coalesce({' AND '.join(inside)}, {_passes(rule.missing)})",
        verdict(
            rule.rule,
            f"CAST({value} AS VARCHAR)",
            f"CASE WHEN {nearer} THEN {text(op)} ELSE {text(other)} END",
            f"CASE WHEN {nearer} THEN {text(repr(threshold))} ELSE {text(repr(above))} END",
            f"CAST(least({margin}, {room}) AS VARCHAR)",
        ),
    )


def _equal(rule: str, column: str, allowed: tuple[Scalar, ...], missing: str) -> Check:
    choices = ", ".join(_literal(value) for value in allowed)
    op, threshold = ("in", list(allowed)) if len(allowed) > 1 else ("==", allowed[0])
    return Check(
        rule,
        f"NOT coalesce({name(column)} IN ({choices}), {_passes(missing)})",
        verdict(
            rule,
            f"CAST(to_json({name(column)}) AS VARCHAR)",
            text(op),
            text(json.dumps(threshold, ensure_ascii=False)),
            "NULL",
        ),
    )


def _passes(missing: str) -> str:
    return "true" if missing == "pass" else "false"


def _literal(value: Scalar) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return text(value) if isinstance(value, str) else number(value)


def _check_values(rule: Rule, family: Family) -> None:
    kinds: dict[type, Family] = {bool: "truth", str: "text", float: "number"}
    wanted = kinds[type(rule.allowed[0])]
    if family != wanted:
        said = f"{rule.column} holds {_WORDS[family]}, {rule.allowed[0]!r} is not of that"
        raise UserError(f"rule={rule.rule}: {said}; compare with a value the column can hold")


def _family(kind: str) -> Family:
    if kind in _NUMBERS or kind.startswith("DECIMAL"):
        return "number"
    return {"VARCHAR": "text", "BOOLEAN": "truth"}.get(kind, "list")  # type: ignore[return-value]
