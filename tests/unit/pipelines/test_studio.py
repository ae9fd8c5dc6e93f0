import pytest
import torch

from contentv.base.errors import WorldError
from contentv.pipelines.studio import explained_memory


def test_running_out_of_memory_names_the_way_out() -> None:
    with (
        pytest.raises(WorldError, match="not enough memory; ask for fewer frames"),
        explained_memory(),
    ):
        torch.empty(1 << 50, dtype=torch.uint8)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("no")])
def test_every_kind_of_it_is_recognised(error: Exception) -> None:
    with pytest.raises(WorldError, match="not enough memory"), explained_memory():
        raise error


def test_other_failures_pass() -> None:
    with pytest.raises(RuntimeError, match="shape"), explained_memory():
        raise RuntimeError("shape mismatch")
