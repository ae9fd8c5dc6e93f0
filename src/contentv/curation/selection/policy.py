"""Policies: which clips are good enough, as data. A YAML file of rules that are read in order."""

import difflib
import hashlib
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml
from pydantic import Field, StrictBool, StrictStr, ValidationError, model_validator

from contentv.base.config import Config, describe_validation_error
from contentv.base.errors import UserError
from contentv.base.files import os_errors
from contentv.data.buckets import BucketConfig

Kind = Literal["video", "picture", "all"]
Scalar: TypeAlias = StrictBool | float | StrictStr

_NAME = r"^[a-z0-9][a-z0-9_-]*$"
_DEEPEST = 8
KIND, BUCKET, TOP, QUOTA = "kind", "bucket", "top", "quota"


class Rule(Config):
    """What one column must be: at least `min` and at most `max`, or equal to something.

    `missing` says what becomes of clips that could not be measured. Columns of the table of videos
    are named `video_...`. Clips of another kind than `kind` pass.
    """

    rule: str = Field(pattern=_NAME, description="name by which losses are counted")
    column: str = Field(min_length=1, description="what is looked at")
    min: float | None = Field(None, description="smallest value that passes")
    max: float | None = Field(None, description="largest value that passes")
    equals: Scalar | None = Field(None, description="the only value that passes")
    one_of: tuple[Scalar, ...] | None = Field(None, min_length=1, description="values that pass")
    missing: Literal["reject", "pass"] = Field("reject", description="what no value means")
    kind: Kind = Field("all", description="clips that the rule is for")

    @property
    def is_range(self) -> bool:
        """Whether the column must be a number within bounds."""
        return self.min is not None or self.max is not None

    @property
    def allowed(self) -> tuple[Scalar, ...]:
        """The values that pass; none for a range."""
        return self.one_of or (() if self.equals is None else (self.equals,))


class Top(Config):
    """Keep clips that are among the best in every one of `columns`, of those that pass all rules.

    `share` is the part that is best in one column; `target` is how many are to be best in all.
    """

    columns: tuple[str, ...] = Field(min_length=1, max_length=4, description="higher is better")
    share: float | None = Field(None, gt=0, le=1, description="the best part of each column")
    target: int | None = Field(None, ge=1, description="how many clips to keep")


class Quota(Config):
    """No more than `most` clips of one source: the best by `top`, else the first by clip id."""

    column: str = Field("video_id", min_length=1, description="what a source is")
    most: int = Field(ge=1, description="clips kept of one source")


class Policy(Config):
    """Rules in order, then the bucket, the best of what is left, and the quota."""

    name: str = Field(pattern=_NAME, description="names the decisions")
    kind: Kind = Field("all", description="clips that are wanted at all")
    stage: str = Field("pretraining", pattern=_NAME, description="what the clips are for")
    rules: tuple[Rule, ...] = Field((), description="in this order; the first lost is the reason")
    bucket: BucketConfig | None = Field(None, description="shapes a clip must fill natively")
    top: Top | None = Field(None, description="keep only the best")
    quota: Quota | None = Field(None, description="keep only so many of a source")

    @model_validator(mode="after")
    def _makes_sense(self) -> "Policy":
        names = [rule.rule for rule in self.rules]
        faults = [f"rule={name}: stands twice" for name in names if names.count(name) > 1]
        faults += [fault for rule in self.rules if (fault := _fault_of_rule(rule))]
        faults += [fault for fault in [_fault_of_top(self.top)] if fault]
        if faults:
            raise ValueError(faults[0])
        return self

    @property
    def digest(self) -> str:
        """Names what the policy decides by, whatever it is called: 8 hex digits."""
        said = self.model_dump_json(exclude={"name"})
        return hashlib.blake2b(said.encode(), digest_size=4).hexdigest()

    @property
    def title(self) -> str:
        """Name and digest: what its decisions are filed under."""
        return f"{self.name}-{self.digest}"


def built_in() -> tuple[str, ...]:
    """Names of the policies that come with the package."""
    return tuple(sorted(_shipped()))


def load_policy(wanted: str) -> Policy:
    """Read a policy by the name of a built-in one, or from a YAML file.

    A file may say `extends: NAME` (built in, or another file beside it): its rules replace those of
    equal name and follow the others. UserError says what does not fit.
    """
    content, place = _resolve(wanted, Path(), 0)
    return checked(content, place)


def checked(content: dict[str, Any], place: str) -> Policy:
    """Make a policy of plain values; UserError names `place`."""
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{place}: {describe_validation_error(error)}") from error


def _fault_of_rule(rule: Rule) -> str:
    who = f"rule={rule.rule}"
    if rule.rule in (KIND, BUCKET, TOP, QUOTA):
        return f"{who}: is the name of a section; use another"
    if sum([rule.is_range, rule.equals is not None, rule.one_of is not None]) != 1:
        return f"{who}: give min and/or max, or equals, or one_of"
    if rule.min is not None and rule.max is not None and rule.min > rule.max:
        return f"{who}: min {rule.min:g} is above max {rule.max:g}; no clip could pass"
    if len({type(value) for value in rule.allowed}) > 1:
        return f"{who}: one_of mixes numbers, text and truths; use one of them"
    return ""


def _fault_of_top(top: Top | None) -> str:
    if top is None:
        return ""
    if (top.share is None) == (top.target is None):
        return "top: give share or target, one of them"
    return "top: a column stands twice" if len(set(top.columns)) < len(top.columns) else ""


def _resolve(wanted: str, folder: Path, depth: int) -> tuple[dict[str, Any], str]:
    if depth > _DEEPEST:
        raise UserError(f"{wanted}: policies extend one another in a circle; break it")
    place = _find(wanted, folder)
    content = _read(place)
    if "extends" not in content:
        return content, place
    base, _ = _resolve(str(content.pop("extends")), Path(place).parent, depth + 1)
    return _merged(base, content), place


def _find(wanted: str, folder: Path) -> str:
    if wanted in _shipped():
        return wanted
    file = folder / wanted
    if file.suffix in (".yaml", ".yml") or file.is_file():
        return str(file)
    near = difflib.get_close_matches(wanted, built_in(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(built_in())}"
    raise UserError(f"policy={wanted}: no such policy; {hint} Or give a .yaml file")


def _read(place: str) -> dict[str, Any]:
    shipped = _shipped()
    if place in shipped:
        written = shipped[place]
    else:
        with os_errors(Path(place), "read"):
            data = Path(place).read_bytes()
        written = data.decode("utf-8", "replace")
    try:
        content = yaml.safe_load(written)
    except yaml.YAMLError as error:
        raise UserError(f"{place}: not YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict) or not isinstance(content.get("rules", []), list):
        raise UserError(f"{place}: not a policy; it needs a name and a list of rules")
    return content


def _shipped() -> dict[str, str]:
    folder = resources.files("contentv.curation.selection") / "policies"
    return {
        file.name.removesuffix(".yaml"): file.read_text(encoding="utf-8")
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    }


def _merged(base: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    rules = {_named(rule): rule for rule in base.get("rules", [])}
    rules |= {_named(rule): rule for rule in content.get("rules", [])}
    return {**base, **content, "rules": list(rules.values())}


def _named(rule: object) -> str:
    # What is not a rule at all is left for the check of the whole to complain about.
    return str(rule.get("rule")) if isinstance(rule, dict) else repr(rule)
