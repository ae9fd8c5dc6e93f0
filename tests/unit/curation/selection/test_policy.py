from pathlib import Path

import pytest

from contentv.base.config import save_yaml
from contentv.base.errors import UserError, WorldError
from contentv.curation.config import CurationSettings
from contentv.curation.engine.chain import VIDEO_COLUMNS
from contentv.curation.engine.steps import chain_of
from contentv.curation.selection.policy import Policy, built_in, load_policy
from contentv.recipes.contentv_8b import CONTENTV_8B

STATIC = {"rule": "static", "column": "motion", "min": 0.004}


def written(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as caught:
        load_policy(written(folder, text))
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", built_in())
def test_what_comes_with_the_package_is_a_policy_of_its_file_name(name: str) -> None:
    policy = load_policy(name)
    assert policy.name == name
    assert policy.rules


@pytest.mark.parametrize("name", built_in())
def test_what_comes_with_the_package_asks_for_what_is_measured(name: str) -> None:
    chain, policy = chain_of(CurationSettings()), load_policy(name)
    known = {column for columns in chain.columns.values() for column in columns}
    known |= {"duration", "dup_of", *(f"video_{column}" for column in VIDEO_COLUMNS)}
    asked = {rule.column for rule in policy.rules} | set(policy.top.columns if policy.top else ())
    assert asked <= known


def test_the_stages_buckets_are_those_that_the_stages_train_in() -> None:
    for stage in ("stage1", "stage2", "stage3"):
        recipe = CONTENTV_8B.stages[stage].buckets
        bucket = load_policy(stage).bucket
        assert bucket is not None
        assert (bucket.areas, bucket.frames, bucket.fps) == (
            recipe.areas,
            recipe.frames,
            recipe.fps,
        )


def test_a_policy_has_the_rules_that_it_extends() -> None:
    base, best = load_policy("pretraining"), load_policy("posttraining")
    assert best.rules == base.rules
    assert best.top is not None
    assert base.top is None


def test_a_rule_takes_the_place_of_its_namesake(tmp_path: Path) -> None:
    base = [STATIC, STATIC | {"rule": "b"}]
    own = [STATIC | {"min": 0.5}, STATIC | {"rule": "c"}]
    written(tmp_path, f"name: base\nrules: {base}", "base.yaml")
    text = f"extends: base.yaml\nname: mine\nrules: {own}"
    policy = load_policy(written(tmp_path, text))
    assert [(rule.rule, rule.min) for rule in policy.rules] == [
        ("static", 0.5),
        ("b", 0.004),
        ("c", 0.004),
    ]


def test_what_was_applied_can_be_read_again(tmp_path: Path) -> None:
    policy = load_policy("stage3")
    save_yaml(policy, tmp_path / "again.yaml")
    again = load_policy(str(tmp_path / "again.yaml"))
    assert again == policy
    assert again.digest == policy.digest


def test_the_digest_is_of_what_decides() -> None:
    policy = Policy.model_validate({"name": "a", "rules": [STATIC]})
    renamed = policy.model_copy(update={"name": "b"})
    other = Policy.model_validate({"name": "a", "rules": [STATIC | {"min": 0.005}]})
    assert renamed.digest == policy.digest
    assert other.digest != policy.digest


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (STATIC | {"min": 2, "max": 1}, "rule=static: min 2 is above max 1"),
        ({"rule": "static", "column": "motion"}, "rule=static: give min and/or max"),
        (STATIC | {"equals": 1}, "rule=static: give min and/or max"),
        ({"rule": "s", "column": "c", "one_of": ["a", 1]}, "rule=s: one_of mixes"),
        (STATIC | {"rule": "bucket"}, "rule=bucket: is the name of a section"),
        (STATIC | {"mim": 1}, "mim: there is no such setting"),
        (STATIC | {"min": ".nan"}, "min="),
        ("static", "static"),
    ],
)
def test_rules_that_cannot_be_meant(tmp_path: Path, rule: object, said: str) -> None:
    assert said in refusal(tmp_path, f"name: mine\nrules: [{rule}]")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [", "not YAML"),
        ("just words", "not a policy"),
        ("name: mine\nrules: 3", "not a policy"),
        ("\x00\x01\x02", "not YAML"),
        ("name: mine\ntop: {columns: [a, a], share: .1}", "a column stands twice"),
        ("name: mine\ntop: {columns: [a]}", "give share or target"),
        (f"name: mine\nrules: [{STATIC}, {STATIC}]", "rule=static: stands twice"),
        ("extends: mine.yaml\nname: mine", "in a circle"),
        ("extends: pretrainin\nname: mine", "did you mean pretraining?"),
        ("rules: []", "name: is required"),
    ],
)
def test_files_that_are_no_policies(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_policy_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(WorldError, match="no such file"):
        load_policy(str(tmp_path / "absent.yaml"))
    with pytest.raises(UserError, match="there are: pictures, "):
        load_policy("zzz")
