import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalogues import random_catalogue, write_catalogue
from contentv.curation.selection.select import catalogue, decide, decisions
from policies import SCORES, clips_of, decided, policy_of


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_catalogue(tmp_path_factory.mktemp("many"), 3000, 0, SCORES)


def growing(columns: Sequence[Sequence[float]], cuts: Sequence[int]) -> Iterator[list[int]]:
    """The clips (numbers, in the order of ids) within ever larger cuts, one cut after another."""
    orders = [sorted(range(len(c)), key=lambda i, c=c: (-c[i], i)) for c in columns]
    yield []
    while min(cuts) < len(columns[0]):
        turn = cuts.index(min(cuts))
        cuts = [cut + (j == turn) for j, cut in enumerate(cuts)]
        tops = [set(order[:cut]) for order, cut in zip(orders, cuts, strict=True)]
        yield sorted(set.intersection(*tops))


values = st.integers(1, 3).flatmap(
    lambda many: st.lists(
        st.tuples(*[st.integers(0, 6).map(float)] * many), min_size=1, max_size=25
    )
)


@given(values, st.integers(1, 30))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_target_is_met_exactly_by_the_smallest_cuts(
    tmp_path: Path, table: list[tuple[float, ...]], target: int
) -> None:
    names = [f"s{j}" for j in range(len(table[0]))]
    clips = [
        {"clip_id": f"c{i:02}", **dict(zip(names, row, strict=True))} for i, row in enumerate(table)
    ]
    policy = policy_of(rules=[], top={"columns": names, "target": target})
    found = decided(write_catalogue(tmp_path, clips), policy)
    kept = [i for i, row in enumerate(found) if row["keep"]]
    wanted = min(target, len(table))
    steps = growing(list(zip(*table, strict=True)), [0] * len(names))
    assert kept == next(step for step in steps if len(step) == wanted)
    assert sorted(row["rank"] for row in found if row["keep"]) == list(range(1, wanted + 1))


@given(values, st.sampled_from([0.1, 0.25, 0.5, 1.0]))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_share_is_that_part_of_every_column(
    tmp_path: Path, table: list[tuple[float, ...]], share: float
) -> None:
    names = [f"s{j}" for j in range(len(table[0]))]
    clips = [
        {"clip_id": f"c{i:02}", **dict(zip(names, row, strict=True))} for i, row in enumerate(table)
    ]
    policy = policy_of(rules=[], top={"columns": names, "share": share})
    found = decided(write_catalogue(tmp_path, clips), policy)
    size = math.floor(share * len(table) + 0.5)
    tops = [
        sorted(range(len(table)), key=lambda i, j=j: (-table[i][j], i))[:size]
        for j in range(len(names))
    ]
    assert [i for i, row in enumerate(found) if row["keep"]] == sorted(
        set.intersection(*map(set, tops))
    )


@pytest.mark.parametrize("target", [1, 7, 100, 500])
def test_a_target_is_met_beside_rules_buckets_and_quotas(many: Path, target: int) -> None:
    policy = policy_of(
        kind="video",
        bucket={"areas": [82944], "frames": [1, 29, 53, 77, 101, 125]},
        top={"columns": ["aes", "motion_weighted"], "target": target},
        quota={"most": 2},
    )
    with catalogue(many) as database:
        chosen = decide(database, policy, "chosen")
        assert chosen.best is not None
        assert chosen.kept == chosen.best.kept
        assert chosen.kept == target or (target > chosen.kept)
        kept = [row["clip_id"] for row in database.rows(decisions(chosen)) if row["keep"]]
    sources = Counter(row["video_id"] for row in clips_of(many) if row["clip_id"] in set(kept))
    assert max(sources.values()) <= 2


def test_too_large_a_target_is_said(many: Path) -> None:
    policy = policy_of(top={"columns": ["aes", "motion"], "target": 10**6})
    with catalogue(many) as database:
        chosen = decide(database, policy, "chosen")
        everything = decide(database, policy_of(), "everything")
    assert chosen.best is not None
    assert chosen.kept == everything.kept - chosen.best.missing
    assert any("target=1000000 cannot be met" in line for line in chosen.best.lines())


def test_correlation_and_chance(tmp_path: Path) -> None:
    clips = [{"clip_id": f"{i:03}", "a": i, "same": i / 7, "turned": -i} for i in range(100)]
    folder = write_catalogue(tmp_path, clips)
    with catalogue(folder) as database:
        for other, rho, kept in (("same", 1.0, 10), ("turned", -1.0, 0)):
            policy = policy_of(rules=[], top={"columns": ["a", other], "share": 0.1})
            best = decide(database, policy, "chosen").best
            assert best is not None
            assert best.correlations == {("a", other): rho}
            assert best.chosen == kept
            assert best.by_chance == pytest.approx(1.0)
