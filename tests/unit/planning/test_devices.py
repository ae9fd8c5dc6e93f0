import pytest

from contentv.planning.devices import DEVICES, peak_flops


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("Ascend910B2", "ascend"),
    ],
)
def test_a_drivers_name_leads_to_the_kind(name: str, kind: str) -> None:
    assert peak_flops(name) == 1e12 * DEVICES[kind].peak_tflops


@pytest.mark.parametrize("name", ["cpu", "NVIDIA GeForce RTX 3060", ""])
def test_of_others_no_peak_is_made_up(name: str) -> None:
    assert peak_flops(name) is None
