import json

import pytest

from contentv.training.config import SpikeConfig
from contentv.training.guard import SpikeGuard


def guard(**config: float) -> SpikeGuard:
    return SpikeGuard(SpikeConfig(**{"factor": 3, "history": 4, **config}))


def test_without_a_factor_nothing_is_a_spike() -> None:
    watching = guard(factor=0)
    assert [watching.judge(10.0**n, 10.0**n) for n in range(9)] == [""] * 9


def test_nothing_is_judged_before_half_the_history() -> None:
    watching = guard()
    assert watching.judge(1, 1) == ""
    assert watching.judge(100, 1) == ""
    assert "loss" in watching.judge(1000, 1)


@pytest.mark.parametrize(
    ("loss", "norm", "named"),
    [(3.0, 3.0, ""), (3.1, 1, "loss 3.1 is 3.1 times"), (1, 4, "gradient norm 4 is 4 times")],
)
def test_a_multiple_of_the_median_sticks_out(loss: float, norm: float, named: str) -> None:
    watching = guard()
    for value in (50, 1, 0.5, 1):  # one wild value among the usual moves no median
        watching.judge(value, 1)
    assert watching.judge(loss, norm).startswith(named)
    assert watching.skipped == bool(named)


def test_spikes_in_a_row_are_counted_and_do_not_become_usual() -> None:
    watching = guard(limit=3)
    for _ in range(4):
        watching.judge(1, 1)
    for _ in range(2):
        assert watching.judge(9, 1)
    assert not watching.exhausted
    assert watching.judge(1, 1) == ""
    assert watching.in_a_row == 0
    for _ in range(3):
        assert watching.judge(9, 1)
    assert watching.exhausted
    assert watching.skipped == 5


def test_a_loss_around_nothing_has_no_scale() -> None:
    watching = guard()
    for _ in range(4):
        watching.judge(-1, 1)
    assert watching.judge(5, 1) == ""


def test_its_state_goes_through_json_and_decides_the_same() -> None:
    one, other = guard(), guard()
    for value in (0.1, 0.7, 1 / 3, 2e-7, 5):
        one.judge(value, value)
    other.load(json.loads(json.dumps(one.state())))
    assert other.state() == one.state()
    assert one.judge(3, 9) == other.judge(3, 9)
