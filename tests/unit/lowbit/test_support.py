"""What a device does not compute is refused with the reason and what it does compute."""

import pytest
import torch

from contentv.base.errors import UserError
from contentv.lowbit.backends import support
from contentv.lowbit.backends.support import KINDS, check_dtype, check_kind, check_runs

CPU = torch.device("cpu")


@pytest.mark.parametrize("kind", ["int8", "int8-dynamic"])
def test_a_cpu_computes_with_whole_numbers(kind: str) -> None:
    check_runs(kind, CPU)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("int4", "has kernels for CUDA cards only"),
        ("nf4", "asks for a GPU"),
        ("fp8", "compute capability 8.9"),
    ],
)
def test_a_cpu_refuses_the_others(kind: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"quantization={kind}: .*{reason}") as caught:
        check_runs(kind, CPU)
    assert str(caught.value).endswith("on cpu use int8 or int8-dynamic")


def test_other_devices_turn_weights_back_into_floats() -> None:
    for device in ("mps", "xpu"):
        check_runs("int8", torch.device(device))
        with pytest.raises(UserError, match=f"on {device} use int8$"):
            check_runs("int8-dynamic", torch.device(device))


def test_fp8_wants_a_recent_card(monkeypatch: pytest.MonkeyPatch) -> None:
    card = torch.device("cuda")
    monkeypatch.setattr(support, "_capability", lambda _: (8, 9))
    for kind in KINDS:
        check_runs(kind, card)
    monkeypatch.setattr(support, "_capability", lambda _: (8, 6))
    with pytest.raises(UserError, match="on cuda use int8 or int8-dynamic or int4 or nf4"):
        check_runs("fp8", card)


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(UserError, match="quantization=int7: must be one of int8, int8-dynamic"):
        check_kind("int7")


@pytest.mark.parametrize("kind", ["int8", "int8-dynamic", "int4", "fp8"])
def test_float16_overflows(kind: str) -> None:
    """Int8 products are scaled after they are summed: rows of thousands pass 65504."""
    with pytest.raises(UserError, match="text_encoder_3 computes in float16"):
        check_dtype(kind, "text_encoder_3", torch.float16)
    check_dtype("nf4", "text_encoder_3", torch.float16)


@pytest.mark.parametrize("kind", ["int4", "fp8"])
def test_kernels_in_bfloat16_only(kind: str) -> None:
    check_dtype(kind, "transformer", torch.bfloat16)
    with pytest.raises(UserError, match="computes in float32, the kernels in bfloat16 only"):
        check_dtype(kind, "transformer", torch.float32)
    check_dtype("int8", "transformer", torch.float32)
