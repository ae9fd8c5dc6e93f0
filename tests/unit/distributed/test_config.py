import subprocess
import sys

import pytest
from pydantic import ValidationError

from contentv.base.errors import UserError
from contentv.distributed.config import ParallelConfig, RecomputeConfig, divisors


def test_one_process_is_the_default() -> None:
    config = ParallelConfig()
    config.check_world(1)
    config.check_model(num_heads=38, splits_tensors=False)
    assert (config.world_size, config.num_data_groups) == (1, 1)


def test_degrees_multiply() -> None:
    config = ParallelConfig(replicate=32, shard=2, sp=2, tp=2)
    assert (config.world_size, config.num_data_groups) == (256, 64)
    config.check_world(256)


@pytest.mark.parametrize(
    ("degrees", "world_size", "message"),
    [
        ({"sp": 3}, 8, "sp=3: must divide 8 ranks; use 1, 2, 4 or 8"),
        ({"tp": 2}, 1, "tp=2: must divide 1 ranks; use 1"),
        ({"shard": 2, "sp": 2}, 8, "makes 4 ranks, not the 8 there are; use shard=4"),
        ({"replicate": 4, "sp": 4}, 8, "makes 16 ranks, not the 8 there are; choose degrees"),
    ],
)
def test_degrees_that_do_not_make_the_world_are_refused(
    degrees: dict[str, int], world_size: int, message: str
) -> None:
    with pytest.raises(UserError) as caught:
        ParallelConfig(**degrees).check_world(world_size)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("tp", [1, 2, 19, 38])
def test_every_divisor_of_the_heads_can_split_matrices(tp: int) -> None:
    ParallelConfig(tp=tp).check_model(num_heads=38)


@pytest.mark.parametrize("sp", [1, 3, 8, 37, 38])
def test_any_degree_up_to_the_heads_can_split_tokens(sp: int) -> None:
    ParallelConfig(sp=sp).check_model(num_heads=38)


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        ({"tp": 4}, "tp=4: must divide 38 heads; use 1, 2, 19 or 38"),
        ({"sp": 39}, "sp=39: each rank needs a head of its own, tp=1 leaves 38; use sp=38 or less"),
        ({"sp": 20, "tp": 2}, "tp=2 leaves 19; use sp=19 or less"),
    ],
)
def test_degrees_that_do_not_fit_the_heads_are_refused(
    degrees: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        ParallelConfig(**degrees).check_model(num_heads=38)
    assert message in str(caught.value)


def test_a_model_that_does_not_say_how_is_not_split() -> None:
    with pytest.raises(UserError, match=r"tp=2: this model does not say how .* use tp=1"):
        ParallelConfig(tp=2).check_model(num_heads=38, splits_tensors=False)


@pytest.mark.parametrize("values", [{"sp": 0}, {"shard": -1}, {"dp": 2}, {"sp_split": "ragged"}])
def test_degrees_are_positive_and_known(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ParallelConfig.model_validate(values)


def test_recomputation_is_of_one_block_in_some() -> None:
    with pytest.raises(ValidationError):
        RecomputeConfig(every=0)


def test_divisors_multiply_in_pairs() -> None:
    for number in range(1, 60):
        found = divisors(number)
        assert [number // n for n in reversed(found)] == found
        assert found == sorted({n for n in range(1, number + 1) if number % n == 0})


def test_it_is_imported_without_torch() -> None:
    code = (
        "import sys, contentv.distributed.config, contentv.distributed.declaration\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
