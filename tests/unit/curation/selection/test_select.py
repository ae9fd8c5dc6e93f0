import hashlib
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogues import VIDEO, random_catalogue, write_catalogue
from contentv.base.errors import UserError
from contentv.curation.database import opened
from contentv.curation.selection.explain import explain
from contentv.curation.selection.policy import Policy, Rule, load_policy
from contentv.curation.selection.questions import SelectConfig
from contentv.curation.selection.select import catalogue, decide, decisions, decisions_path, run
from policies import SCORES, WHOLE, clips_of, decided, policy_of, written


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_catalogue(tmp_path_factory.mktemp("many"), 3000, 0, SCORES)


Row = Mapping[str, Any]
# --- an oracle: the same laws, one clip at a time -------------------------------------------------

cells = {
    "number": st.one_of(
        st.none(),
        st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1.0, 15.0]),
        st.floats(-100, 100),
    ),
    "whole": st.one_of(st.none(), st.integers(-3, 3)),
    "word": st.sampled_from(["", "a", "it's", 'quote"', "\\", "\n", "ü", None]),
    "truth": st.sampled_from([True, False, None]),
    "kind": st.sampled_from(["video", "picture"]),
}
rows = st.lists(st.fixed_dictionaries(cells), max_size=8)
missing = st.sampled_from(["reject", "pass"])
kinds = st.sampled_from(["all", "video", "picture"])
bounds = st.floats(-20, 20).map(lambda bound: round(bound, 2))


def rules_of(column: str, fields: Mapping[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {"column": st.just(column), "missing": missing, "kind": kinds, **fields}
    )


def between(column: str) -> st.SearchStrategy[Any]:
    pairs = st.lists(bounds, min_size=2, max_size=2).map(sorted)
    ranges = pairs.flatmap(
        lambda pair: st.sampled_from(
            [{"min": pair[0]}, {"max": pair[1]}, {"min": pair[0], "max": pair[1]}]
        )
    )
    return st.builds(lambda rule, ends: rule | ends, rules_of(column, {}), ranges)


any_rule = st.one_of(
    between("number"),
    between("whole"),
    rules_of("word", {"one_of": st.lists(st.sampled_from(["", "a", "it's", "\n"]), min_size=1)}),
    rules_of("truth", {"equals": st.booleans()}),
    rules_of("whole", {"equals": st.integers(-3, 3).map(float)}),
)


def passes(rule: Rule, row: Row) -> bool:
    if rule.kind not in ("all", row["kind"]):
        return True
    value = row[rule.column]
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return rule.missing == "pass"
    if rule.is_range:
        low = -math.inf if rule.min is None else rule.min
        return low <= value <= (math.inf if rule.max is None else rule.max)
    return value in rule.allowed


@given(rows, st.lists(any_rule, max_size=4), kinds)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_select_and_explain_say_what_the_rules_say(
    tmp_path: Path, table: list[Row], written: list[dict[str, Any]], kind: str
) -> None:
    named = [{"rule": f"r{i}", **rule} for i, rule in enumerate(written)]
    policy = Policy.model_validate({"name": "mine", "kind": kind, "rules": named})
    typed = {"number": 0.5, "whole": 1, "word": "a", "truth": True, "kind": "other"}
    clips = [{"clip_id": f"c{i}", **row} for i, row in enumerate([typed, *table])]
    folder = write_catalogue(tmp_path, clips)
    with catalogue(folder) as database:
        chosen = decide(database, policy, "chosen")
        found = {row["clip_id"]: row for row in database.rows(decisions(chosen))}
        assert len(found) == len(clips)
        for clip in clips:
            lost = ["kind"] if kind not in ("all", clip["kind"]) else []
            lost += [rule.rule for rule in policy.rules if not passes(rule, clip)]
            row = found[clip["clip_id"]]
            assert row["keep"] == (not lost)
            assert row["first_reason"] == (lost[0] if lost else None)
            reasons = json.loads(row["reasons"])
            assert [reason["rule"] for reason in reasons] == lost
            said = explain(database, chosen, clip["clip_id"])
            assert said.first_reason == row["first_reason"]
            failed = [verdict for verdict in said.verdicts if not verdict.passed]
            for verdict, reason in zip(failed, reasons, strict=True):
                assert reason == {key: getattr(verdict, key) for key in reason}
            for verdict in said.verdicts:
                assert verdict.margin is None or (verdict.margin >= 0) == verdict.passed


# --- laws of the whole ----------------------------------------------------------------------------


def test_the_order_of_rows_does_not_matter(many: Path, tmp_path: Path) -> None:
    rows = clips_of(many)
    random.Random(0).shuffle(rows)
    with opened({"videos": many / "videos.parquet"}) as database:
        videos = database.rows("SELECT * FROM videos ORDER BY video_id DESC")
    shuffled = write_catalogue(tmp_path / "shuffled", rows, videos)
    config = {"policy": str(written(tmp_path, policy_of(**WHOLE)))}
    first = run(SelectConfig(catalogue=many, **config)).path
    second = run(SelectConfig(catalogue=shuffled, **config)).path
    digests = [hashlib.blake2b(path.read_bytes()).hexdigest() for path in (first, second)]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"rules": [{"rule": "x", "column": "motoin", "min": 1}]}, "did you mean motion"),
        ({"rules": [{"rule": "x", "column": "qqq", "min": 1}]}, "no column qqq"),
        ({"rules": [{"rule": "x", "column": "uri", "min": 1}]}, "uri holds text"),
        ({"rules": [{"rule": "x", "column": "motion", "equals": "a"}]}, "motion holds numbers"),
        ({"rules": [{"rule": "x", "column": "video_satus", "equals": "ok"}]}, "video_status"),
        ({"top": {"columns": ["uri"], "share": 0.5}}, "top: uri holds text"),
        ({"top": {"columns": ["aess"], "share": 0.5}}, "did you mean aes"),
        ({"quota": {"column": "channel", "most": 1}}, "quota: the catalogue has no column channel"),
    ],
)
def test_questions_that_the_catalogue_cannot_answer(
    many: Path, content: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        decided(many, policy_of(**content))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_of_videos_can_be_asked(tmp_path: Path) -> None:
    videos = [VIDEO, {"video_id": "v1", "status": "failed", "error_class": "corrupt"}]
    clips = [
        {"clip_id": "a"},
        {"clip_id": "b", "video_id": "v1"},
        {"clip_id": "c", "video_id": "?"},
    ]
    rule = {"rule": "status", "column": "video_status", "one_of": ["ok", "partial"]}
    found = decided(write_catalogue(tmp_path, clips, videos), policy_of(rules=[rule]))
    assert [row["keep"] for row in found] == [True, False, False]


def test_nothing_is_enlarged_into_a_bucket(tmp_path: Path) -> None:
    clips = [
        {"clip_id": "a"},
        {"clip_id": "b", "width": 320, "height": 180},
        {"clip_id": "c", "crop_width": 0.5},
        {"clip_id": "d", "duration": 1.0},
        {"clip_id": "e", "fps": 12.0},
        {"clip_id": "f", "kind": "picture", "fps": 0.0, "duration": 0.0},
        {"clip_id": "g", "width": None},
        {"clip_id": "h", "crop_width": None, "crop_height": None},
    ]
    bucket = {"areas": [432 * 768], "frames": [1, 29, 125]}
    found = decided(write_catalogue(tmp_path, clips), policy_of(rules=[], bucket=bucket))
    assert [row["bucket"] for row in found] == [
        *("125x432x768", None, "125x576x576", None, None, "1x432x768", None, "125x432x768")
    ]
    faults = [json.loads(row["reasons"])[0]["threshold"] for row in found if not row["keep"]]
    assert faults == ["too_small", "too_short", "too_slow", "unmeasured"]


def test_a_catalogue_without_clips_and_one_without_a_run(tmp_path: Path) -> None:
    folder = write_catalogue(tmp_path / "full", [{"clip_id": "a", "aes": 1.0}])
    with catalogue(folder) as database:
        database.write("SELECT * FROM clips WHERE false", tmp_path / "empty" / "clips.parquet")
    for file in ("videos.parquet", "catalogue.json"):
        (tmp_path / "empty" / file).write_bytes((folder / file).read_bytes())
    whole = policy_of(rules=[], top={"columns": ["aes"], "target": 3}, quota={"most": 1})
    assert decided(tmp_path / "empty", whole) == []
    with pytest.raises(UserError, match="run `contentv curate run` first"):
        run(SelectConfig(catalogue=tmp_path / "absent"))


def test_decisions_stand_beside_their_policy(many: Path, tmp_path: Path) -> None:
    policy = policy_of(**WHOLE)
    result = run(SelectConfig(catalogue=many, policy=str(written(tmp_path, policy))))
    assert result.path == decisions_path(many, policy)
    assert load_policy(str(result.path.with_suffix(".yaml"))) == policy
    with opened({"d": result.path}) as database:
        assert database.rows("SELECT * FROM d") == decided(many, policy)
    assert f"keeps {result.selection.kept} of 3000 clips" in str(result)
