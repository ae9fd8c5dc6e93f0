from pathlib import Path

import pytest

from catalogues import CLIP, write_catalogue
from contentv.base.errors import UserError
from contentv.curation.selection.explain import explain, find_clip
from contentv.curation.selection.select import catalogue, decide
from policies import RULES, policy_of


def test_a_clip_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    clips = [{"clip_id": name} for name in ("abc1", "abc2", "abc", "xyz")]
    with catalogue(write_catalogue(tmp_path, clips)) as database:
        assert find_clip(database, "x") == "xyz"
        assert find_clip(database, "abc") == "abc"
        assert find_clip(database, "abc2") == "abc2"
        with pytest.raises(UserError, match=r"clip=ab: begins .* abc, abc1, abc2"):
            find_clip(database, "ab")
        with pytest.raises(UserError, match=r"clip=xyq: no clip's .* nearest: xyz"):
            find_clip(database, "xyq")
        with pytest.raises(UserError, match=r"clip=q%: no clip's .* nearest: abc, abc1, abc2"):
            find_clip(database, "q%")


def test_duplicates_are_explained(tmp_path: Path) -> None:
    clips = [
        {"clip_id": "a", "dup_of": ""},
        {"clip_id": "b", "dup_of": "a"},
        {"clip_id": "c", "dup_of": "a", "text\n<b>": "x\ny"},
    ]
    with catalogue(write_catalogue(tmp_path, clips)) as database:
        chosen = decide(database, policy_of(rules=RULES[:2]), "chosen")
        original, copy = explain(database, chosen, "a"), explain(database, chosen, "c")
    assert original.copies == ("b", "c")
    assert copy.original == ("a", None)
    assert copy.first_reason == "duplicate"
    assert "duplicate of a, which is kept" in str(copy)
    assert "x\\ny" in str(copy)
    assert set(CLIP) <= set(copy.scores)
