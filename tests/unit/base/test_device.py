import importlib.util

import pytest
import torch

from contentv.base.device import (
    default_dtype,
    describe_devices,
    main_memory,
    pick_device,
    total_memory,
)
from contentv.base.errors import UserError, WorldError


def test_the_best_device_is_an_accelerator_or_else_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("USE_ASCEND_NPU", raising=False)
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    assert pick_device() == (accelerator or torch.device("cpu"))
    assert pick_device("cpu") == torch.device("cpu")


def test_the_switch_of_the_published_demo_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("torch_npu") is not None:
        pytest.skip("this machine may really have an Ascend NPU")
    monkeypatch.setenv("USE_ASCEND_NPU", "1")
    with pytest.raises(WorldError, match="install torch_npu, or unset USE_ASCEND_NPU"):
        pick_device()
    assert pick_device("cpu") == torch.device("cpu")
    monkeypatch.setenv("USE_ASCEND_NPU", "0")
    pick_device()


@pytest.mark.parametrize("name", ["gpu", "", "cpu:x", "meta", "vulkan", "cuda:99"])
def test_an_unknown_device_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=r"use one of .*cpu") as caught:
        pick_device(name)
    assert "\n" not in str(caught.value)


def test_the_cpu_computes_in_float32() -> None:
    assert default_dtype(torch.device("cpu")) is torch.float32


def test_devices_are_described() -> None:
    assert any(line.startswith("cpu: ") for line in describe_devices())


def test_memory_is_known_where_there_is_some() -> None:
    assert total_memory(torch.device("cpu")) is None
    memory = main_memory()
    assert memory is None or 2**28 < memory < 2**50
