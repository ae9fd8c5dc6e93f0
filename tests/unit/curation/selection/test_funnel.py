import json
from collections import Counter
from pathlib import Path

import pytest

from catalogues import random_catalogue
from contentv.curation.selection.funnel import funnel
from contentv.curation.selection.select import catalogue, decide
from policies import SCORES, WHOLE, decided, policy_of


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_catalogue(tmp_path_factory.mktemp("many"), 3000, 0, SCORES)


def test_the_funnel_sums_exactly(many: Path) -> None:
    policy = policy_of(**WHOLE)
    found = decided(many, policy)
    with catalogue(many) as database:
        losses = funnel(database, decide(database, policy, "chosen"))
    assert losses.total == len(found)
    assert losses.kept == sum(row["keep"] for row in found)
    assert losses.total - sum(loss.lost for loss in losses.losses) == losses.kept
    first = Counter(row["first_reason"] for row in found)
    reasons = [[r["rule"] for r in json.loads(row["reasons"])] for row in found]
    for loss in losses.losses:
        assert loss.lost == first[loss.rule] > 0
        assert loss.any == sum(loss.rule in rules for rules in reasons)
        assert loss.alone == sum(rules == [loss.rule] for rules in reasons)
    assert {loss.rule for loss in losses.losses} == {
        *("kind", "duplicate", "text", "blur", "speed"),
        *("bucket", "top.aes", "top.motion_weighted", "quota"),
    }
    assert f"keeps {losses.kept} of 3000" in str(losses)
