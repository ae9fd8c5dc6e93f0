import numpy as np
import pytest

from contentv.data.buckets import Bucket
from contentv.data.plan import MixPhase, Plan
from contentv.data.shelves import Shelf
from contentv.recipes.autotune import (
    Cost,
    Load,
    encoder_devices,
    encoder_seconds,
    parts,
    predicted_seconds,
    survey,
)

PICTURE, VIDEO = Bucket(1, 64, 64), Bucket(5, 64, 64)
LOADS = (Load(PICTURE, 64.0, Cost(0.25, 1e12)), Load(VIDEO, 32.0, Cost(1.0, 9e12)))


@pytest.mark.parametrize(
    ("step_seconds", "devices"),
    [(48.0, 1), (47.9, 2), (24.0, 2), (10.0, 5), (0.1, 480), (1e6, 1)],
)
def test_devices_keep_up_and_one_fewer_would_not(step_seconds: float, devices: int) -> None:
    assert encoder_seconds(LOADS) == 48.0
    assert encoder_devices(LOADS, step_seconds) == devices
    assert devices * step_seconds >= 48.0 > (devices - 1) * step_seconds


def test_rounding_of_rates_makes_no_device_more() -> None:
    loads = [Load(PICTURE, 0.1, Cost(1.0, 1.0)) for _ in range(30)]
    assert encoder_seconds(loads) != 3.0  # as floating-point numbers add up
    assert encoder_devices(loads, 1.0) == 3


def test_where_nothing_is_encoded_nobody_is_needed() -> None:
    assert encoder_devices([], 1.0) == 0
    assert encoder_devices([Load(PICTURE, 4.0, Cost(0.0, 1.0))], 1.0) == 0


def test_a_step_takes_its_operations_at_the_share_of_the_peak_that_is_reached() -> None:
    operations = 64 * 1e12 + 32 * 9e12
    seconds = predicted_seconds(LOADS, trainers=16, peak=1e12, mfu=0.5)
    assert seconds == pytest.approx(operations / (16 * 0.5e12))


def plan() -> Plan:
    """Two steps of videos, then as many pictures as videos, which come in twos."""
    shelves = (Shelf(PICTURE, np.arange(4), 4), Shelf(VIDEO, np.arange(4, 8), 2))
    phases = (MixPhase(steps=2), MixPhase(steps=10**6, pictures=1, videos=1))
    return Plan(0, "stage", shelves, phases, 3, "clips")


def test_a_part_is_where_the_mix_stays_the_same() -> None:
    assert list(parts(plan(), 100)) == [range(2), range(2, 100)]
    assert list(parts(plan(), 2)) == [range(2)]
    assert list(parts(plan(), 1)) == [range(1)]


def test_the_mix_is_that_of_the_plan_and_each_ticket_is_of_its_bucket() -> None:
    made, (first, later) = plan(), parts(plan(), 98)
    samples, tickets = survey(made, "ab", first)
    assert samples == {VIDEO: 6.0}
    samples, tickets = survey(made, "ab", later)
    assert samples[PICTURE] == pytest.approx(samples[VIDEO], rel=0.05)
    for bucket, some in tickets.items():
        for ticket in some:
            assert made(ticket.step).deal(0, 1)[ticket.micro_batch].bucket == bucket
