from pathlib import Path

import pytest

from catalogues import random_catalogue
from contentv.base.errors import UserError
from contentv.curation.selection.compare import changed, compare
from contentv.curation.selection.select import catalogue
from policies import SCORES, WHOLE, decided, policy_of


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_catalogue(tmp_path_factory.mktemp("many"), 3000, 0, SCORES)


def test_what_if_is_what_the_changed_policy_does(many: Path) -> None:
    policy = policy_of(**WHOLE)
    changes = ("blur.min=40", "speed=off", "top.target=50", "kind=all", "quota.most=3")
    other = changed(policy, changes)
    assert [rule.rule for rule in other.rules] == ["duplicate", "text", "blur"]
    assert (other.rules[2].min, other.kind) == (40, "all")
    assert other.top is not None
    assert (other.top.target, other.top.share) == (50, None)
    with catalogue(many) as database:
        found = compare(database, policy, other, ("before", "after"), 3)
    kept = [{row["clip_id"] for row in decided(many, p) if row["keep"]} for p in (policy, other)]
    assert found.kept == tuple(map(len, kept))
    assert found.kept[1] == 50
    assert found.both == len(kept[0] & kept[1])
    for side, other_side, moved in zip(kept, kept[::-1], found.only, strict=True):
        assert moved.count == len(side - other_side) == sum(moved.by_rule.values())
        assert set(moved.examples) <= side - other_side
    assert f"({50 - found.kept[0]:+})" in str(found)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("blur.min", "not a change"),
        ("=3", "not a change"),
        ("blr.min=3", "did you mean blur?"),
        ("bucket=off", "no rule bucket"),
        ("blur=3", "say what of blur, as in blur.min=3"),
        ("blur.mim=3", "there is no such setting"),
        ("blur.min=[", "is no value"),
        ("blur.min=high", "blur"),
        ("speed.min=2", "min 2 is above max 0.8"),
        ("name=x", "no rule name"),
    ],
)
def test_changes_that_cannot_be_meant(change: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        changed(policy_of(), [change])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
