"""Which device computes, and in which number format. The only file that knows device vendors."""

import importlib
import importlib.util
import os
from pathlib import Path

import torch

from contentv.base.errors import UserError, WorldError

_ASCEND_SWITCH = "USE_ASCEND_NPU"
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def pick_device(name: str | None = None) -> torch.device:
    """Give the named device, or the best one present: an accelerator if there is one, else the CPU.

    `USE_ASCEND_NPU=1` in the environment, the switch of the published demo, asks for an Ascend NPU.
    UserError when the name is not a device of this machine; WorldError when the NPU cannot be used.
    """
    if name is None and os.environ.get(_ASCEND_SWITCH, "").strip() not in ("", "0"):
        return _ascend()
    if name is None:
        return _best()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"device={name}: not a device; use one of {_names()}") from error
    if device.type == "npu":
        _load_ascend_plugin()
    if device.type != "cpu" and (device.type not in _names() or not _has_index(device)):
        raise UserError(f"device={name}: not on this machine; use one of {_names()}")
    return device


def default_dtype(device: torch.device) -> torch.dtype:
    """Give the number format for models: bfloat16 on an accelerator, float32 on a CPU."""
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return torch.float16
    return torch.bfloat16


def device_name(device: torch.device) -> str:
    """What its driver calls a device, such as "NVIDIA H200"; of a CPU, "cpu"."""
    backend = getattr(torch, device.type)
    name: str = getattr(backend, "get_device_name", lambda _: device.type)(device.index)
    return name


def total_memory(device: torch.device) -> int | None:
    """Bytes of memory that an accelerator has in all; None when its driver does not say."""
    return None if (found := _memory(device)) is None else found[1]


def main_memory() -> int | None:
    """Bytes of main memory that this process can have; None when the system does not say."""
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None
    try:  # a container has less than its machine
        return min(found, int(_CONTAINER_LIMIT.read_text()))
    except (OSError, ValueError):
        return found


def describe_devices() -> list[str]:
    """List this machine's devices for a person, best first: name, kind, free and total memory."""
    accelerator = _accelerator()
    cpu = f"cpu: {torch.get_num_threads()} threads"
    if accelerator is None:
        return [cpu]
    count = torch.accelerator.device_count()
    return [*(_describe(torch.device(accelerator.type, index)) for index in range(count)), cpu]


def _best() -> torch.device:
    _load_ascend_plugin(required=False)
    accelerator = _accelerator()
    return torch.device("cpu") if accelerator is None else accelerator


def _ascend() -> torch.device:
    _load_ascend_plugin()
    accelerator = _accelerator()
    if accelerator is None or accelerator.type != "npu":
        raise WorldError(f"{_ASCEND_SWITCH}=1: no Ascend NPU is visible; check `npu-smi info`")
    return accelerator


def _accelerator() -> torch.device | None:
    if not torch.accelerator.is_available():
        return None
    return torch.accelerator.current_accelerator()


def _names() -> list[str]:
    accelerator = _accelerator()
    return ["cpu"] if accelerator is None else [accelerator.type, "cpu"]


def _has_index(device: torch.device) -> bool:
    index: int | None = device.index
    return index is None or index < torch.accelerator.device_count()


def _load_ascend_plugin(*, required: bool = True) -> None:
    # The plug-in registers the device when imported; it is not a dependency of ours.
    if importlib.util.find_spec("torch_npu") is not None:
        importlib.import_module("torch_npu")
    elif required:
        raise WorldError("no Ascend NPU support: install torch_npu, or unset USE_ASCEND_NPU")


def _describe(device: torch.device) -> str:
    found = _memory(device)
    memory = "" if found is None else f", {found[0] / 2**30:.1f} of {found[1] / 2**30:.1f} GiB free"
    return f"{device}: {device_name(device)}{memory}"


def _memory(device: torch.device) -> tuple[int, int] | None:
    """Free and all bytes of an accelerator."""
    backend = getattr(torch, device.type)
    try:
        free, total = backend.mem_get_info(device.index)
    except (AttributeError, RuntimeError):
        return None
    return free, total
