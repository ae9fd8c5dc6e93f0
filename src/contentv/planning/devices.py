"""Kinds of device that a plan can be made for: datasheet numbers, and assumed bandwidths."""

from dataclasses import dataclass

from contentv.base.errors import UserError


@dataclass(frozen=True)
class Device:
    """One kind of device.

    `peak_tflops` dense bfloat16, in 1e12 operations a second; `memory_gib` as a driver reports it.
    Bandwidths are GB/s that one device sends: `link_gb_s` to the others of its node of `node`
    devices, `network_gb_s` beyond. They are assumptions: your cluster's are better.
    """

    title: str
    peak_tflops: float
    memory_gib: float
    node: int
    link_gb_s: float
    network_gb_s: float


# Peaks and memory: datasheets (dense, without sparsity), `ascend` as the paper gives it (320
# TFLOP/s, 64 GB). Links: `ascend` one of seven links between neighbours, the others about 85 % of
# a datasheet's rate in one direction.
DEVICES = {
    "ascend": Device("the paper's 64 GB accelerator", 320, 64, 8, 56, 25),
    "h200": Device("H200 SXM 141 GB", 989, 140, 8, 392, 40),
    "h100": Device("H100 SXM 80 GB", 989, 79.6, 8, 392, 40),
    "a100": Device("A100 SXM 80 GB", 312, 80, 8, 250, 20),
    "rtx4090": Device("RTX 4090 24 GB", 165, 24, 8, 20, 2),
}


def find_device(kind: str) -> Device:
    """The device of this kind; UserError when there is none."""
    if kind not in DEVICES:
        raise UserError(f"device={kind}: not a known kind; use one of {', '.join(DEVICES)}")
    return DEVICES[kind]


def peak_flops(name: str) -> float | None:
    """Peak in operations a second of the device that its driver calls so; None when not known."""
    joined = name.lower().replace(" ", "")
    found = (device for kind, device in DEVICES.items() if kind in joined)
    return next((1e12 * device.peak_tflops for device in found), None)
